// One sequence's sampler chain over llama.cpp's `common` samplers.
#pragma once

#include <memory>
#include <vector>

#include "backend/text_backend.h"
#include "sampling.h"

namespace snapllm {

class LlamaSampler : public Sampler {
 public:
  LlamaSampler(common_sampler_ptr sampler, int64_t seed, int32_t num_logprobs)
      : sampler_(std::move(sampler)), seed_(seed), num_logprobs_(num_logprobs) {}

  // Refuses what `common` would abort on or could not sample with.
  static Result<std::unique_ptr<Sampler>> create(const llama_model* model,
                                                 const SamplingParams& params,
                                                 const ChatPrompt* chat,
                                                 const std::vector<Token>& prompt,
                                                 int32_t context_size);

  int64_t seed() const override { return seed_; }
  int32_t num_logprobs() const { return num_logprobs_; }
  common_sampler* get() const { return sampler_.get(); }

 private:
  const common_sampler_ptr sampler_;
  const int64_t seed_;
  const int32_t num_logprobs_;
};

}  // namespace snapllm
