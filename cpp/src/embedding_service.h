// Embeddings: jobs that the compute thread does in pieces between the schedulers' steps.
#pragma once

#include <vector>

#include "backend/text_backend.h"
#include "scheduler/compute_thread.h"
#include "scheduler/scheduler.h"
#include "snapllm/embedding.h"
#include "snapllm/status.h"

namespace snapllm {

// Computes the vectors of the request's inputs, each of length 1, and waits for them. Counts
// them, unless they are refused. Fails with the scheduler's end_status once it is ended.
// Any thread but the compute thread; the caller keeps the model resident meanwhile.
Result<std::vector<Embedding>> embed(ComputeThread& compute, const TextModel& model,
                                     Scheduler& scheduler, const EmbedRequest& request);

// The first `dimensions` components (0 = all), scaled to length 1. A vector of zeros
// stays one.
Embedding normalized(Embedding vector, int32_t dimensions);

}  // namespace snapllm
