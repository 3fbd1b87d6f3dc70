// What the engine needs to turn tokens into vectors.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "snapllm/embedding.h"
#include "snapllm/status.h"

namespace snapllm {

// Inputs on their way to their vectors.
struct EmbedJob {
  const std::vector<std::vector<Token>>& inputs;
  Pooling pooling = Pooling::kAuto;
  std::vector<Embedding> vectors;  // of the inputs that are done, in their order
  // Of the next input, where it is computed in several steps:
  int32_t num_computed = 0;
  std::vector<double> sum;  // of its tokens' vectors so far

  bool is_done() const { return vectors.size() == inputs.size(); }
};

// A model's embeddings, beside the text it generates. Compute thread only, but for
// max_input_tokens and turn.
class Embedder {
 public:
  virtual ~Embedder() = default;
  // Refuses a pooling that the model cannot do.
  virtual Status check(Pooling pooling) const = 0;
  virtual int32_t max_input_tokens() const = 0;
  // Computes the job's next tokens, about as many as one step of a scheduler takes.
  // REQUIRES: !job.is_done(), no input empty or too long; no other job is under way.
  virtual Status step(EmbedJob& job) = 0;
  // Held by the thread whose job is under way.
  std::mutex& turn() { return turn_; }

 private:
  std::mutex turn_;
};

}  // namespace snapllm
