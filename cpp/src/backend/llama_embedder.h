// Embeddings over a llama_context of their own.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/embedder.h"
#include "backend/llama_text_context.h"

namespace snapllm {

// Two ways to compute, by what the model is. A model that names a pooling, or looks at
// all tokens at once, takes each input whole, and llama.cpp pools. A generative model
// takes its input in chunks, and the vectors of its tokens are pooled here.
class LlamaEmbedder : public Embedder {
 public:
  // Fails with kOutOfMemory, and with kInvalidModel for a model that ranks.
  static Result<std::unique_ptr<LlamaEmbedder>> create(
      std::shared_ptr<const LlamaTextModel> model, int32_t num_threads);
  // What one of the model is going to take, about.
  static uint64_t needed_bytes(const LlamaTextModel& model);
  ~LlamaEmbedder() override;

  // What it holds beside the weights.
  ContextMemory memory() const { return memory_of(context_.get()); }

  Status check(Pooling pooling) const override;
  int32_t max_input_tokens() const override { return max_input_tokens_; }
  Status step(EmbedJob& job) override;

 private:
  struct Limits;
  static Limits limits_of(const LlamaTextModel& model);
  LlamaEmbedder(std::shared_ptr<const LlamaTextModel> model, LlamaContextPtr context,
                const Limits& limits);

  // Adds the input's tokens from `begin` to `end` to the batch, as sequence `id`.
  void append(const std::vector<Token>& input, int32_t begin, int32_t end, int32_t id);
  Status compute();
  void clear_memory();
  Status step_whole_inputs(EmbedJob& job);
  Status step_chunk(EmbedJob& job);
  // Pools rows [first, first + count) of the last batch.
  Result<Embedding> pool_rows(int32_t first, int32_t count, bool last_only) const;

  const std::shared_ptr<const LlamaTextModel> model_;  // outlives context_
  const LlamaContextPtr context_;
  const bool takes_whole_;
  const int32_t max_input_tokens_;
  const int32_t step_tokens_;
  llama_batch batch_;
};

// The context of a model that only embeds: there is nothing to decode with.
class EmbeddingOnlyContext : public TextContext {
 public:
  EmbeddingOnlyContext(std::unique_ptr<LlamaEmbedder> embedder, int32_t num_threads)
      : embedder_(std::move(embedder)), num_threads_(num_threads) {}

  Result<DecodeOutcome> decode(const std::vector<BatchEntry>&, const std::atomic<bool>*) override {
    return refusal();
  }
  bool is_encoded(const MediaChunk&) const override { return false; }
  Status encode_media(const MediaChunk&) override { return refusal(); }
  Result<DecodeOutcome> decode_media(const MediaChunk&, SequenceId, int32_t) override {
    return refusal();
  }
  Result<SampledToken> sample(Sampler&, int32_t) override { return refusal(); }
  Result<TokenLogprobs> logprobs(Token, int32_t, int32_t) override { return refusal(); }
  void truncate_sequence(SequenceId, int32_t) override {}
  void clear_sequence(SequenceId) override {}
  void fork_sequence(SequenceId, SequenceId, TokenRange) override {}
  Result<StateBytes> save_state(SequenceId, TokenRange) override { return refusal(); }
  size_t restore_states(SequenceId, std::span<const SavedState>) override { return 0; }
  Result<Embedder*> embedder() override { return embedder_.get(); }
  uint64_t embedder_bytes() const override { return 0; }
  double time_decode(int32_t) override { return 0.0; }
  int32_t num_threads() const override { return num_threads_; }
  void set_num_threads(int32_t) override {}
  ContextMemory memory() const override { return embedder_->memory(); }

 private:
  static Status refusal() {
    return {StatusCode::kGenerationFailed, "the model only computes embeddings"};
  }

  const std::unique_ptr<LlamaEmbedder> embedder_;
  const int32_t num_threads_;
};

}  // namespace snapllm
