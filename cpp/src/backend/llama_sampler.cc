#include "backend/llama_sampler.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <utility>

#include "backend/llama_runtime.h"
#include "chat/grammar_check.h"
#include "chat/llama_chat_format.h"
#include "llama-cpp.h"
#include "llama.h"

namespace snapllm {
namespace {

Status invalid(const std::string& message) { return {StatusCode::kInvalidRequest, message}; }

Status check_range(const char* name, float value, float low, float high) {
  if (value >= low && value <= high) return {};  // false for NaN
  return invalid(std::string(name) + " must be between " + std::to_string(low) + " and " +
                 std::to_string(high));
}

Status check_params(const SamplingParams& params, int32_t vocab_size) {
  for (const Status& status :
       {check_range("temperature", params.temperature, 0.0f, 100.0f),
        check_range("top_p", params.top_p, 0.0f, 1.0f),
        check_range("min_p", params.min_p, 0.0f, 1.0f),
        check_range("typical_p", params.typical_p, 0.0f, 1.0f),
        check_range("repeat_penalty", params.repeat_penalty, 0.01f, 100.0f),
        check_range("frequency_penalty", params.frequency_penalty, -100.0f, 100.0f),
        check_range("presence_penalty", params.presence_penalty, -100.0f, 100.0f)}) {
    if (!status.ok()) return status;
  }
  if (params.min_tokens < 0) return invalid("min_tokens must not be negative");
  if (params.top_k < 0) return invalid("top_k must not be negative");
  if (params.penalty_last_n < -1) return invalid("penalty_last_n must be -1 or more");
  if (params.num_logprobs > vocab_size) return invalid("num_logprobs exceeds the vocabulary");
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return invalid("logit_bias names token " + std::to_string(token) +
                     ", which the model does not have");
    }
    if (std::isnan(bias)) return invalid("logit_bias must not be NaN");
  }
  return {};
}

Status check_grammar(const llama_vocab* vocab, const std::string& grammar) {
  if (grammar.empty()) return {};
  const std::string fault = grammar_fault(vocab, grammar);
  return fault.empty() ? Status() : invalid("grammar must be one that can be used: " + fault);
}

bool has_penalties(const SamplingParams& params) {
  return params.penalty_last_n != 0 &&
         (params.repeat_penalty != 1.0f || params.frequency_penalty != 0.0f ||
          params.presence_penalty != 0.0f);
}

// Only the samplers that change something: each of the others would still cost a
// pass over the vocabulary.
std::vector<common_sampler_type> sampler_chain(const SamplingParams& params) {
  std::vector<common_sampler_type> chain;
  if (has_penalties(params)) chain.push_back(COMMON_SAMPLER_TYPE_PENALTIES);
  if (params.temperature <= 0.0f) {
    chain.push_back(COMMON_SAMPLER_TYPE_TOP_K);  // with k = 1: greedy
    return chain;
  }
  if (params.top_k > 0) chain.push_back(COMMON_SAMPLER_TYPE_TOP_K);
  if (params.typical_p < 1.0f) chain.push_back(COMMON_SAMPLER_TYPE_TYPICAL_P);
  if (params.top_p < 1.0f) chain.push_back(COMMON_SAMPLER_TYPE_TOP_P);
  if (params.min_p > 0.0f) chain.push_back(COMMON_SAMPLER_TYPE_MIN_P);
  chain.push_back(COMMON_SAMPLER_TYPE_TEMPERATURE);
  return chain;
}

uint32_t chosen_seed(int64_t seed) {
  if (seed < 0) seed = std::random_device{}();
  const auto value = static_cast<uint32_t>(seed);
  return value == LLAMA_DEFAULT_SEED ? 0 : value;  // that value asks for a random one
}

common_params_sampling to_common(const SamplingParams& params, int32_t context_size) {
  common_params_sampling common;
  common.no_perf = true;
  common.seed = chosen_seed(params.seed);
  common.temp = params.temperature;
  common.top_p = params.top_p;
  common.top_k = params.temperature <= 0.0f ? 1 : params.top_k;
  common.min_p = params.min_p;
  common.typ_p = params.typical_p;
  common.min_keep = 1;
  common.penalty_repeat = params.repeat_penalty;
  common.penalty_freq = params.frequency_penalty;
  common.penalty_present = params.presence_penalty;
  // No answer and its prompt are longer; upstream reserves memory for all of it.
  common.penalty_last_n =
      params.penalty_last_n < 0 ? context_size : std::min(params.penalty_last_n, context_size);
  common.samplers = sampler_chain(params);
  for (const auto& [token, bias] : params.logit_bias) common.logit_bias.push_back({token, bias});
  if (!params.grammar.empty()) common.grammar = {COMMON_GRAMMAR_TYPE_USER, params.grammar};
  return common;
}

// What keeps an answer from its end. Where there is a grammar that is not banned: it may be all
// that the grammar allows.
std::vector<llama_logit_bias> end_biases(const common_params_sampling& common,
                                         const std::vector<Token>& end_tokens) {
  const float bias = common.grammar.grammar.empty() ? -INFINITY : -1e9f;
  std::vector<llama_logit_bias> biases;
  for (const Token token : end_tokens) biases.push_back({token, bias});
  return biases;
}

// Logits with biases while it lives; they are used for log probabilities, too.
class BiasedLogits {
 public:
  BiasedLogits(float* logits, std::span<const llama_logit_bias> biases)
      : logits_(logits), biases_(biases) {
    for (const auto& [token, bias] : biases_) {
      kept_.push_back(logits_[token]);
      logits_[token] += bias;
    }
  }
  ~BiasedLogits() {
    for (size_t i = kept_.size(); i-- > 0;) logits_[biases_[i].token] = kept_[i];
  }
  BiasedLogits(const BiasedLogits&) = delete;
  BiasedLogits& operator=(const BiasedLogits&) = delete;

 private:
  float* const logits_;
  const std::span<const llama_logit_bias> biases_;
  std::vector<float> kept_;
};

// Whether the chain does no more than choose the likeliest token. `common` copies
// and orders the whole vocabulary for that, which takes longer than a small model's
// own work.
bool is_plain_greedy(const common_params_sampling& params) {
  const bool has_budget = params.reasoning_budget_tokens >= 0;
  return params.temp <= 0.0f && params.grammar.grammar.empty() && !has_budget &&
         params.samplers == std::vector{COMMON_SAMPLER_TYPE_TOP_K};
}

}  // namespace

bool are_numbers(const float* logits, int32_t vocab_size) {
  bool are_numbers = true;
  for (int32_t i = 0; i < vocab_size; ++i) are_numbers &= logits[i] < INFINITY;
  return are_numbers;
}

LlamaSampler::LlamaSampler(common_sampler_ptr sampler, const common_params_sampling& params,
                           int32_t num_logprobs)
    : sampler_(std::move(sampler)),
      is_greedy_(is_plain_greedy(params)),
      logit_bias_(params.logit_bias),
      seed_(params.seed),
      num_logprobs_(num_logprobs) {}

void LlamaSampler::bias_beginning(int32_t num_tokens, std::vector<llama_logit_bias> biases) {
  num_of_beginning_ = num_tokens;
  beginning_bias_ = std::move(biases);
}

Token LlamaSampler::sample(llama_context* context, int32_t batch_index) {
  Token token = -1;
  if (num_of_beginning_ > 0) {
    --num_of_beginning_;
    const BiasedLogits biased(llama_get_logits_ith(context, batch_index), beginning_bias_);
    token = choose(context, batch_index);
  } else {
    token = choose(context, batch_index);
  }
  if (token >= 0) common_sampler_accept(sampler_.get(), token, /*is_generated=*/true);
  return token;
}

Token LlamaSampler::choose(llama_context* context, int32_t batch_index) {
  const int32_t vocab_size =
      llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context)));
  float* const logits = llama_get_logits_ith(context, batch_index);
  if (is_greedy_) return most_likely(logits, vocab_size);
  // They have no order that llama.cpp's samplers could sort them by.
  if (!are_numbers(logits, vocab_size)) return -1;
  const Token token = common_sampler_sample(sampler_.get(), context, batch_index);
  const auto* candidates = common_sampler_get_candidates(sampler_.get(), /*do_sort=*/false);
  // Where everything is banned, what was chosen is too.
  return candidates->data[candidates->selected].logit == -INFINITY ? -1 : token;
}

Token LlamaSampler::most_likely(float* logits, int32_t vocab_size) const {
  const BiasedLogits biased(logits, logit_bias_);
  const float* const best = std::max_element(logits, logits + vocab_size);
  return std::isfinite(*best) ? static_cast<Token>(best - logits) : -1;
}

Result<std::unique_ptr<Sampler>> LlamaSampler::create(const llama_model* model,
                                                      const SamplingParams& params,
                                                      const ChatPrompt* chat,
                                                      const std::vector<Token>& prompt,
                                                      const std::vector<Token>& end_tokens,
                                                      int32_t context_size) {
  const llama_vocab* vocab = llama_model_get_vocab(model);
  if (Status status = check_params(params, llama_vocab_n_tokens(vocab)); !status.ok()) {
    return status;
  }
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<std::unique_ptr<Sampler>> {
    // A grammar may not fit the model's vocabulary in more ways than are checked.
    const LlamaAssertTrap trap;
    if (Status status = check_grammar(vocab, params.grammar); !status.ok()) return status;
    common_params_sampling common = to_common(params, context_size);
    if (const auto* format = dynamic_cast<const LlamaChatPrompt*>(chat)) {
      format->constrain(common, vocab);
    }
    const auto at_end = end_biases(common, end_tokens);
    if (params.ignore_eos) {
      common.logit_bias.insert(common.logit_bias.end(), at_end.begin(), at_end.end());
    }
    common_sampler_ptr sampler(common_sampler_init(model, common));
    if (!sampler) return invalid("the sampling parameters cannot be used with this model");
    if (has_penalties(params)) {
      for (const Token token : prompt) {
        if (token >= 0) common_sampler_accept(sampler.get(), token, false);
      }
    }
    auto made = std::make_unique<LlamaSampler>(std::move(sampler), common, params.num_logprobs);
    if (!params.ignore_eos) made->bias_beginning(params.min_tokens, at_end);
    return std::unique_ptr<Sampler>(std::move(made));
  });
}

}  // namespace snapllm
