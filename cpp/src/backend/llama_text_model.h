// A model's weights, vocabulary and chat template over llama.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/llama_projector.h"
#include "backend/loaded_weights.h"
#include "backend/prompt_limit.h"
#include "backend/text_backend.h"
#include "chat/llama_chat_format.h"
#include "llama.h"

namespace snapllm {

// Sliding-window, recurrent and hybrid models cannot be cut by token range, and neither can
// those that give an image fewer positions than tokens.
KvKind kv_kind_of(const llama_model* model, const LlamaProjector* projector);

// Tokens of one decode. With a sliding window as many as of a physical batch: llama.cpp finds cells
// for all physical batches of a decode before it computes the first of them, and where a later one
// takes a cell that will have left the window, an earlier one misses a token that is still in its.
int32_t batch_tokens_of(const llama_model* model, const ModelOptions& options, int32_t kv_cells);

// Whether a batch may hold several sequences. Of some recurrent architectures llama.cpp would store
// their states in cells of others, or past the end of all (plamo2), or states of other tokens than
// their last (RWKV in the place of a Qwen's attention).
bool can_batch_sequences(const std::string& architecture);

class LlamaTextModel : public TextModel {
 public:
  // `paths` are of its files, by which the weights may have been loaded for another id, or by others.
  LlamaTextModel(std::shared_ptr<const LoadedWeights> weights, std::vector<std::string> paths,
                 std::unique_ptr<LlamaChatFormat> chat_format,
                 std::shared_ptr<LlamaProjector> projector, const ModelOptions& options,
                 const Hash128& fingerprint, ModelInfo info);

  const ModelInfo& info() const override { return info_; }
  int32_t batch_tokens() const override { return batch_tokens_; }
  int32_t ubatch_tokens() const override { return ubatch_tokens_; }
  // Of one text that is to become a vector.
  int32_t embedding_tokens() const { return embedding_tokens_; }
  KvKind kv_kind() const override { return kv_kind_of(get(), projector_.get()); }
  Hash128 fingerprint() const override { return fingerprint_; }
  bool is_intact() const override { return weights_->are_intact(); }
  bool is_of_its_files() const override {
    return weights_->are_at(paths_) &&
           (projector_ == nullptr || projector_->is_of(info_.mmproj_path));
  }
  bool is_control(Token token) const override;
  Result<std::vector<Token>> tokenize(const std::string& text, bool add_special,
                                      bool parse_special) const override;
  Result<std::vector<Token>> tokenize_infill(const std::string& prefix,
                                             const std::string& suffix) const override;
  std::string token_bytes(Token token, bool special) const override;
  bool is_end_of_generation(Token token) const override;
  Result<std::shared_ptr<const ChatPrompt>> format_chat(
      const ChatFormatRequest& request) const override;
  bool is_preserved(const ChatPrompt* chat, Token token) const override;
  Result<std::unique_ptr<Sampler>> create_sampler(const SamplingParams& params,
                                                  const ChatPrompt* chat,
                                                  const std::vector<Token>& prompt) const override;

  // For who computes with the weights, before and after: the refusal where they are not intact.
  Status check_intact() const;

  llama_model* get() const { return weights_->model(); }
  // Null for a model that takes text only.
  LlamaProjector* projector() const { return projector_.get(); }

 private:
  PromptLimit prompt_limit() const;

  const std::shared_ptr<const LoadedWeights> weights_;  // perhaps shared with other ids
  const std::vector<std::string> paths_;
  const llama_vocab* const vocab_;
  const std::shared_ptr<LlamaProjector> projector_;
  const std::unique_ptr<LlamaChatFormat> chat_format_;
  const int32_t batch_tokens_;
  const int32_t ubatch_tokens_;
  const int32_t embedding_tokens_;
  const Hash128 fingerprint_;
  size_t longest_token_bytes_ = 1;
  std::vector<Token> end_tokens_;
  ModelInfo info_;
};

}  // namespace snapllm
