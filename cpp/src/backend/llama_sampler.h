// One sequence's sampler chain over llama.cpp's `common` samplers.
#pragma once

#include <memory>
#include <vector>

#include "backend/text_backend.h"
#include "llama.h"
#include "sampling.h"

namespace snapllm {

// Whether none of the logits is NaN or infinite; what is banned may be minus infinity.
bool are_numbers(const float* logits, int32_t vocab_size);

class LlamaSampler : public Sampler {
 public:
  LlamaSampler(common_sampler_ptr sampler, const common_params_sampling& params,
               int32_t num_logprobs);

  // Refuses what `common` would abort on or could not sample with. The end tokens are all that end
  // an answer of the model's.
  static Result<std::unique_ptr<Sampler>> create(const llama_model* model,
                                                 const SamplingParams& params,
                                                 const ChatPrompt* chat,
                                                 const std::vector<Token>& prompt,
                                                 const std::vector<Token>& end_tokens,
                                                 int32_t context_size);

  // For the first so many tokens these come on top of the other biases.
  void bias_beginning(int32_t num_tokens, std::vector<llama_logit_bias> biases);

  int64_t seed() const override { return seed_; }
  int32_t num_logprobs() const { return num_logprobs_; }

  // Samples from the logits of output `batch_index` of the context's last batch and
  // accepts the token. Negative when there is none to choose.
  Token sample(llama_context* context, int32_t batch_index);

 private:
  Token choose(llama_context* context, int32_t batch_index);
  Token most_likely(float* logits, int32_t vocab_size) const;

  const common_sampler_ptr sampler_;
  const bool is_greedy_;
  const std::vector<llama_logit_bias> logit_bias_;
  const int64_t seed_;
  const int32_t num_logprobs_;
  int32_t num_of_beginning_ = 0;  // tokens of the beginning that are still to come
  std::vector<llama_logit_bias> beginning_bias_;
};

}  // namespace snapllm
