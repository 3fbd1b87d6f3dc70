#include "backend/llama_text_model.h"

#include <algorithm>
#include <utility>

#include "backend/llama_runtime.h"
#include "backend/llama_sampler.h"
#include "common.h"

namespace snapllm {

KvKind kv_kind_of(const llama_model* model, const LlamaProjector* projector) {
  const bool is_whole = llama_model_is_recurrent(model) || llama_model_is_hybrid(model) ||
                        llama_model_n_swa(model) > 0 ||
                        (projector != nullptr && projector->uses_mrope());
  return is_whole ? KvKind::kCheckpoints : KvKind::kBlocks;
}

int32_t batch_tokens_of(const llama_model* model, const ModelOptions& options, int32_t kv_cells) {
  const bool has_window = llama_model_n_swa(model) > 0;
  return std::min(has_window ? options.ubatch_tokens : options.batch_tokens, kv_cells);
}

bool can_batch_sequences(const std::string& architecture) {
  return architecture != "plamo2" && architecture != "rwkv6qwen2" && architecture != "arwkv7";
}

LlamaTextModel::LlamaTextModel(std::shared_ptr<const LoadedWeights> weights,
                               std::vector<std::string> paths,
                               std::unique_ptr<LlamaChatFormat> chat_format,
                               std::shared_ptr<LlamaProjector> projector,
                               const ModelOptions& options, const Hash128& fingerprint,
                               ModelInfo info)
    : weights_(std::move(weights)),
      paths_(std::move(paths)),
      vocab_(llama_model_get_vocab(get())),
      projector_(std::move(projector)),
      chat_format_(std::move(chat_format)),
      batch_tokens_(batch_tokens_of(get(), options, info.kv_cells)),
      ubatch_tokens_(std::min(options.ubatch_tokens, batch_tokens_)),
      embedding_tokens_(std::min(options.batch_tokens, info.kv_cells)),
      fingerprint_(fingerprint),
      info_(std::move(info)) {
  info_.fingerprint = fingerprint_.hex();
  info_.kv_kind = kv_kind() == KvKind::kBlocks ? "blocks" : "checkpoints";
  info_.has_vision = projector_ != nullptr && projector_->sees();
  info_.has_audio = projector_ != nullptr && projector_->hears();
  info_.has_chat_template = chat_format_->has_template();
  info_.supports_thinking = chat_format_->supports_thinking();
  info_.supports_tools = chat_format_->supports_tools();
  for (llama_token token = 0; token < llama_vocab_n_tokens(vocab_); ++token) {
    const char* text = llama_vocab_get_text(vocab_, token);
    longest_token_bytes_ = std::max(longest_token_bytes_, std::string_view(text).size());
    if (llama_vocab_is_eog(vocab_, token)) end_tokens_.push_back(token);
  }
}

Status LlamaTextModel::check_intact() const {
  if (is_intact()) return {};
  return {StatusCode::kGenerationFailed,
          "the file of model " + info_.id +
              " was written to while it was in memory: it is loaded anew"};
}

PromptLimit LlamaTextModel::prompt_limit() const {
  return {longest_token_bytes_, info_.context_size, [this](const std::string& text) {
            return common_tokenize(vocab_, text, /*add_special=*/false, /*parse_special=*/false)
                .size();
          }};
}

Result<std::vector<Token>> LlamaTextModel::tokenize(const std::string& text, bool add_special,
                                                    bool parse_special) const {
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<std::vector<Token>> {
    if (Status status = prompt_limit().check(text); !status.ok()) return status;
    return common_tokenize(vocab_, text, add_special, parse_special);
  });
}

Result<std::vector<Token>> LlamaTextModel::tokenize_infill(const std::string& prefix,
                                                           const std::string& suffix) const {
  const Token before = llama_vocab_fim_pre(vocab_);
  const Token after = llama_vocab_fim_suf(vocab_);
  const Token middle = llama_vocab_fim_mid(vocab_);
  if (before < 0 || after < 0 || middle < 0) {
    return Status(StatusCode::kInvalidRequest,
                  "the model's vocabulary has no tokens to ask for what is missing between two texts");
  }
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<std::vector<Token>> {
    if (Status status = prompt_limit().check(prefix + suffix); !status.ok()) return status;
    std::vector<Token> tokens;
    const auto append = [&](const std::string& text) {
      const auto more = common_tokenize(vocab_, text, /*add_special=*/false,
                                        /*parse_special=*/false);
      tokens.insert(tokens.end(), more.begin(), more.end());
    };
    if (llama_vocab_get_add_bos(vocab_)) tokens.push_back(llama_vocab_bos(vocab_));
    tokens.push_back(before);
    append(prefix);
    tokens.push_back(after);
    append(suffix);
    tokens.push_back(middle);
    return tokens;
  });
}

std::string LlamaTextModel::token_bytes(Token token, bool special) const {
  return common_token_to_piece(vocab_, token, special);
}

bool LlamaTextModel::is_end_of_generation(Token token) const {
  return llama_vocab_is_eog(vocab_, token);
}

bool LlamaTextModel::is_control(Token token) const {
  return token >= 0 && llama_vocab_is_control(vocab_, token);
}

Result<std::shared_ptr<const ChatPrompt>> LlamaTextModel::format_chat(
    const ChatFormatRequest& request) const {
  return chat_format_->format(request, prompt_limit());
}

bool LlamaTextModel::is_preserved(const ChatPrompt* chat, Token token) const {
  const auto* format = dynamic_cast<const LlamaChatPrompt*>(chat);
  return format != nullptr && format->is_preserved(token);
}

Result<std::unique_ptr<Sampler>> LlamaTextModel::create_sampler(
    const SamplingParams& params, const ChatPrompt* chat, const std::vector<Token>& prompt) const {
  return LlamaSampler::create(get(), params, chat, prompt, end_tokens_,
                              info_.context_size);
}

}  // namespace snapllm
