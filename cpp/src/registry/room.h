// How large a model comes in: which of the sizes that it could have, and whom it costs.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/text_backend.h"
#include "registry/governor.h"

namespace snapllm {

// Sizes a model in `options` could have within a number of bytes.
using PlanFunction = std::function<Result<MemoryPlan>(const ModelOptions&, uint64_t max_bytes)>;

struct RoomChoice {
  MemoryPlan plan;
  Charge charge;
  std::vector<std::string> victims;  // to be evicted first
};

// The best of, in this order: the sizes it had (`last`, for a model that comes back); what
// fits beside the others, if that is a useful context; a useful context at the others'
// cost; whatever fits; the least at the others' cost. Sizes that the options fix stay.
// Fails with kOutOfMemory, explaining, when none can be had, or as `plan` fails.
Result<RoomChoice> choose_room(const std::string& model_id, const ModelOptions& options,
                               const std::optional<ModelInfo>& last,
                               std::span<const Holding> holdings, const MemoryUse& use,
                               Victims allowed, const PlanFunction& plan);

}  // namespace snapllm
