// What the scheduler and the engine need from a text model. llama_backend.h
// implements it over llama.cpp; the C++ tests implement it with a fake.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/embedder.h"
#include "snapllm/chat_prompt.h"
#include "snapllm/options.h"
#include "snapllm/output.h"
#include "snapllm/request.h"
#include "snapllm/stats.h"
#include "snapllm/status.h"
#include "store/piece.h"

namespace snapllm {

using SequenceId = int32_t;

struct BatchEntry {
  Token token = 0;
  int32_t position = 0;
  SequenceId sequence = 0;
  bool output = false;  // whether its logits will be sampled
};

enum class DecodeOutcome {
  kDone,
  kCellsFull,  // nothing was computed and nothing changed
  kStopped,    // nothing changed
};

// The sampler chain of one sequence, with its grammar and random state.
class Sampler {
 public:
  virtual ~Sampler() = default;
  virtual int64_t seed() const = 0;
};

struct SampledToken {
  Token token = 0;
  TokenLogprobs logprobs;  // empty unless the sampler was asked for them
};

struct ContextMemory {
  uint64_t kv_bytes = 0;
  uint64_t compute_bytes = 0;
  uint64_t gpu_bytes = 0;  // of these and of the weights, what is on GPUs
};

// A batch has guesses of so many sequences at most. With more of them it computes enough at
// once: guesses would only add work.
constexpr int32_t kMaxDraftingSequences = 4;
// Of the tokens whose prompts are scored it has so many: each is a row of logits.
constexpr int32_t kMaxScoredTokens = 32;

// What TextContext::save_state gave.
struct SavedState {
  const StateBytes* bytes = nullptr;
  TokenRange range;        // what it holds
  int32_t num_tokens = 0;  // of them to be used, from range.begin on
};

// KV memory and compute of one model. Only the compute thread may call it.
class TextContext {
 public:
  virtual ~TextContext() = default;
  // Where `stop` is given and becomes true meanwhile, it may end at once with kStopped.
  // REQUIRES: 0 < batch.size() <= the model's batch_tokens; outputs of one entry for each
  // sequence, of the guesses of kMaxDraftingSequences, and of kMaxScoredTokens. With `stop`: the
  // entries are of one sequence, and the model's info().can_stop.
  virtual Result<DecodeOutcome> decode(const std::vector<BatchEntry>& batch,
                                       const std::atomic<bool>* stop = nullptr) = 0;
  // Whether the chunk's embeddings are there, so that decode_media can take them.
  virtual bool is_encoded(const MediaChunk& chunk) const = 0;
  // Computes them. They stay until decode_media was called, and some longer.
  virtual Status encode_media(const MediaChunk& chunk) = 0;
  // Puts the encoded chunk into the KV memory, where it begins at the position.
  // REQUIRES: the sequence's positions before it are there.
  virtual Result<DecodeOutcome> decode_media(const MediaChunk& chunk, SequenceId sequence,
                                             int32_t position) = 0;
  // Samples from the logits of entry `batch_index` of the last decode and lets
  // the sampler accept the token.
  virtual Result<SampledToken> sample(Sampler& sampler, int32_t batch_index) = 0;
  // How likely `token` was, by the logits of entry `batch_index` of the last decode, and the
  // likeliest `num_alternatives`.
  virtual Result<TokenLogprobs> logprobs(Token token, int32_t batch_index,
                                         int32_t num_alternatives) = 0;
  // Forgets what the sequence holds from that position on.
  // REQUIRES: the model is of kind kBlocks
  virtual void truncate_sequence(SequenceId sequence, int32_t position) = 0;
  // Forgets everything of the sequence.
  virtual void clear_sequence(SequenceId sequence) = 0;
  // Lets `to` go on with tokens of `from`, as a copy; their cells are shared. A model of kind
  // kCheckpoints can only copy all of them.
  // REQUIRES: `to` ends where the range begins, or begins where it ends; `from` holds these tokens
  virtual void fork_sequence(SequenceId from, SequenceId to, TokenRange range) = 0;
  // The KV of the positions of `range`, or of kind kCheckpoints the whole state after
  // range.end tokens.
  // REQUIRES: the sequence holds these positions; kCheckpoints: and nothing after them
  virtual Result<StateBytes> save_state(SequenceId sequence, TokenRange range) = 0;
  // Lets the sequence begin with saved states, one after the other, and returns how many of them.
  // It stops before one that does not fit this context, or for which there are not as many
  // cells; of kind kCheckpoints the sequence is empty then.
  // REQUIRES: the sequence is empty; each state begins where the one before it ends; all of each but
  // the last is used. Of kind kBlocks the first begins at 0, or where what is forked next ends
  virtual size_t restore_states(SequenceId sequence, std::span<const SavedState> states) = 0;
  // Made when it is first asked for; the context keeps it.
  virtual Result<Embedder*> embedder() = 0;
  // What making it is going to take, about; 0 once it is there. Any thread.
  virtual uint64_t embedder_bytes() const = 0;
  // Microseconds of one decode of one token with that many threads; the KV memory is
  // empty before and after. For calibration.
  // REQUIRES: 0 < num_threads <= what num_threads() was at first
  virtual double time_decode(int32_t num_threads) = 0;
  // Threads of decoding; at first as many as there may be, or as the options say.
  virtual int32_t num_threads() const = 0;
  virtual void set_num_threads(int32_t num_threads) = 0;
  // What was really allocated, for the embedder, too.
  virtual ContextMemory memory() const = 0;
};

// Weights, vocabulary and chat template. Immutable: any thread may call it.
class TextModel {
 public:
  virtual ~TextModel() = default;
  virtual const ModelInfo& info() const = 0;
  virtual int32_t batch_tokens() const = 0;
  virtual int32_t ubatch_tokens() const = 0;
  virtual KvKind kv_kind() const = 0;
  // What the KV of a token depends on besides the tokens: weights, KV types, build.
  virtual Hash128 fingerprint() const = 0;
  // False once its files were written to: it computes nothing any more, and is to be loaded anew.
  virtual bool is_intact() const = 0;
  // False once other files are in the place of its own: loaded again it would be another model.
  virtual bool is_of_its_files() const = 0;
  // False for a virtual token.
  virtual bool is_control(Token token) const = 0;

  virtual Result<std::vector<Token>> tokenize(const std::string& text, bool add_special,
                                              bool parse_special) const = 0;
  // A prompt for what is missing between two texts, neither of which has special tokens. Fails
  // with kInvalidRequest where the vocabulary has no tokens to ask for it.
  virtual Result<std::vector<Token>> tokenize_infill(const std::string& prefix,
                                                     const std::string& suffix) const = 0;
  // The token's bytes. Control tokens have none unless `special` is set.
  // REQUIRES: 0 <= token < info().vocab_size
  virtual std::string token_bytes(Token token, bool special) const = 0;
  virtual bool is_end_of_generation(Token token) const = 0;

  virtual Result<std::shared_ptr<const ChatPrompt>> format_chat(
      const ChatFormatRequest& request) const = 0;
  // Whether the chat's reader needs to see this control token as text.
  virtual bool is_preserved(const ChatPrompt* chat, Token token) const = 0;

  // Refuses parameters and grammars that cannot be sampled with. `prompt` seeds
  // the penalties. `chat` may be null.
  virtual Result<std::unique_ptr<Sampler>> create_sampler(const SamplingParams& params,
                                                          const ChatPrompt* chat,
                                                          const std::vector<Token>& prompt) const = 0;
};

struct LoadedModel {
  std::shared_ptr<const TextModel> model;
  std::unique_ptr<TextContext> context;
};

// The sizes a model is loaded with and what it will take.
struct MemoryPlan {
  int32_t context_size = 0;
  int32_t kv_cells = 0;
  std::string weights_key;  // loads with the same key share their weights
  uint64_t weights_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t projector_bytes = 0;
  uint64_t total_bytes = 0;  // with compute buffers and a margin
};

// Thread-safe; loads of different files run beside each other.
class TextBackend {
 public:
  virtual ~TextBackend() = default;
  // Checks options and file before anything of it is trusted, and fits the model into
  // `max_bytes`. Sizes the options leave at 0 shrink with the memory there is. Fails
  // with kOutOfMemory when the least does not fit. Allocates nothing.
  virtual Result<MemoryPlan> plan(const ModelOptions& options, uint64_t max_bytes) = 0;
  // Loads the model in the planned sizes; fails with kClosed when `cancelled` is set
  // meanwhile.
  virtual Result<LoadedModel> load(const std::string& model_id, const ModelOptions& options,
                                   const MemoryPlan& plan, const std::atomic<bool>& cancelled) = 0;
  // Bytes that models may still take on the machine, or on its GPUs where they compute.
  virtual uint64_t available_bytes() const = 0;
};

}  // namespace snapllm
