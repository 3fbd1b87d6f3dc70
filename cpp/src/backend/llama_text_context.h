// KV memory and compute of one model over a llama_context.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "backend/cell_orders.h"
#include "backend/llama_text_model.h"
#include "backend/text_backend.h"
#include "backend/thread_tuner.h"
#include "kernels/helpers.h"
#include "llama.h"

namespace snapllm {

struct LlamaContextDeleter {
  void operator()(llama_context* context) const { llama_free(context); }
};
using LlamaContextPtr = std::unique_ptr<llama_context, LlamaContextDeleter>;

// What the context holds in KV memory and buffers.
ContextMemory memory_of(const llama_context* context);

class LlamaEmbedder;

class LlamaTextContext : public TextContext {
 public:
  // Computes with that many threads; with `tunes`, with no more than these.
  // REQUIRES: with `tunes`, results that do not depend on the number of threads
  LlamaTextContext(std::shared_ptr<const LlamaTextModel> model, LlamaContextPtr context,
                   int32_t max_threads, bool tunes);
  ~LlamaTextContext() override;

  Result<DecodeOutcome> decode(const std::vector<BatchEntry>& batch,
                               const std::atomic<bool>* stop) override;
  bool is_encoded(const MediaChunk& chunk) const override;
  Status encode_media(const MediaChunk& chunk) override;
  Result<DecodeOutcome> decode_media(const MediaChunk& chunk, SequenceId sequence,
                                     int32_t position) override;
  Result<SampledToken> sample(Sampler& sampler, int32_t batch_index) override;
  Result<TokenLogprobs> logprobs(Token token, int32_t batch_index,
                                 int32_t num_alternatives) override;
  void truncate_sequence(SequenceId sequence, int32_t position) override;
  void clear_sequence(SequenceId sequence) override;
  void fork_sequence(SequenceId from, SequenceId to, TokenRange range) override;
  Result<StateBytes> save_state(SequenceId sequence, TokenRange range) override;
  size_t restore_states(SequenceId sequence, std::span<const SavedState> states) override;
  Result<Embedder*> embedder() override;
  uint64_t embedder_bytes() const override;
  double time_decode(int32_t num_threads) override;
  int32_t num_threads() const override { return num_threads_; }
  void set_num_threads(int32_t num_threads) override;
  ContextMemory memory() const override;

 private:
  // Computes with as many threads as the tuner chooses, or with those that are set.
  Result<DecodeOutcome> compute_tuned(const std::vector<BatchEntry>& batch);
  Result<DecodeOutcome> compute(const std::vector<BatchEntry>& batch, int32_t num_helpers = 0);
  // Lets `compute` read the weights, if they are intact before and after.
  template <typename Compute>
  Result<DecodeOutcome> with_weights(Compute&& compute) const;
  // Whether what is being computed is to be left; llama.cpp asks after each operation of the CPU.
  static bool is_stopped(void* context);
  // Sets the sequence to the states, which go on from each other, instead of what it holds, and
  // checks what came of it. REQUIRES: one state, or the model is of kind kBlocks
  bool set_states(SequenceId sequence, std::span<const SavedState> states);
  // Appends as many of the states as there is room for (kBlocks only).
  size_t restore_one_by_one(SequenceId sequence, std::span<const SavedState> states);
  // The sequence id that states are cut and joined through (kBlocks only).
  SequenceId scratch() const { return model_->info().num_kv_sequences - 1; }
  TokenLogprobs logprobs_of(Token token, int32_t batch_index, int32_t num_alternatives) const;

  const std::shared_ptr<const LlamaTextModel> model_;  // outlives context_
  const LlamaContextPtr context_;
  const int32_t max_threads_;
  int32_t num_threads_;  // of steps of one token, or what the tuner begins with there
  std::optional<ThreadTuner> tuner_;
  std::optional<Helpers> helpers_;  // once there was a step for them
  llama_batch batch_;
  CellOrders orders_;
  const std::atomic<bool>* stop_ = nullptr;  // of the decode that runs; null = it goes on to its end
  std::unique_ptr<LlamaEmbedder> embedder_;
  std::atomic<bool> has_embedder_{false};
};

}  // namespace snapllm
