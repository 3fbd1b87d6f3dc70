// The facade: many resident models, one compute thread, requests in, outputs out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "snapllm/chat_prompt.h"
#include "snapllm/embedding.h"
#include "snapllm/external_holder.h"
#include "snapllm/options.h"
#include "snapllm/output_queue.h"
#include "snapllm/prefix.h"
#include "snapllm/request.h"
#include "snapllm/stats.h"
#include "snapllm/status.h"

namespace snapllm {

// All methods may be called from any thread. Those that use a model which was evicted wait until
// it is back. Load, unload, drain, close and embed may wait for a model to compute, and so may
// what is done with a prefix; that waits for the disk, too, as submit does where it reads from it.
class Engine {
 public:
  // Fails when the workspace cannot be used.
  static Result<std::unique_ptr<Engine>> create(EngineOptions options);
  ~Engine();  // cancels what is running
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Makes the model resident under `model_id`; the first one becomes active.
  // Other models go on decoding meanwhile; idle ones are evicted where memory is short,
  // and come back when they are asked for.
  Result<ModelInfo> load(const std::string& model_id, const ModelOptions& options);

  // Refuses new requests, cancels the model's own and frees its memory. Returns what the model
  // has counted until then.
  Result<ModelStats> unload(const std::string& model_id);

  // Makes `model_id` the default of requests that name no model.
  Status switch_model(const std::string& model_id);
  std::string active_model() const;  // empty when none is loaded

  // Exempts the model from eviction, or ends that.
  Status set_pinned(const std::string& model_id, bool pinned);
  // Brings the model back if it was evicted.
  Status ensure_resident(const std::string& model_id);
  // Charges what something outside of the engine holds to the memory budget, evicting idle
  // models to make room; 0 = nothing any more. Fails with kOutOfMemory, and calls it `what`
  // then; empty = by its name.
  Status set_external_memory(const std::string& name, uint64_t bytes,
                             const std::string& what = "");
  void set_external_holder(ExternalHolder holder);

  // Of models in memory and of evicted ones.
  Result<ModelInfo> model_info(const std::string& model_id) const;
  std::vector<ModelInfo> models() const;
  EngineStats stats() const;
  // Evictions and returns after the event of that number, of the last thousand.
  std::vector<ResidencyEvent> residency_events(uint64_t after) const;

  // An empty model_id means the active model, here and in GenerateRequest. Where the model would have
  // to be loaded again, or is on its way, these wait, or without `may_wait` fail with kModelNotFound.
  Result<std::vector<Token>> tokenize(const std::string& model_id, const std::string& text,
                                      bool add_special, bool parse_special,
                                      bool may_wait = true) const;
  // A prompt for what is missing between two texts.
  Result<std::vector<Token>> tokenize_infill(const std::string& model_id,
                                             const std::string& prefix,
                                             const std::string& suffix,
                                             bool may_wait = true) const;
  Result<std::string> detokenize(const std::string& model_id, const std::vector<Token>& tokens,
                                 bool special, bool may_wait = true) const;
  Result<std::shared_ptr<const ChatPrompt>> format_chat(const std::string& model_id,
                                                        const ChatFormatRequest& request,
                                                        bool may_wait = true) const;

  // Queues a request; its outputs go to `outputs`. Everything that can be refused
  // is refused here. Returns the request's id.
  Result<uint64_t> submit(GenerateRequest request, std::shared_ptr<OutputQueue> outputs);
  // `submit` where it takes no time; nothing where the model would have to be loaded again, or
  // something of the prompt to be read from disk.
  Result<std::optional<uint64_t>> try_submit(const GenerateRequest& request,
                                             std::shared_ptr<OutputQueue> outputs);

  // Ends the request within one step; false when it is not running (any more).
  bool cancel(uint64_t request_id);

  // The vectors of the request's inputs, each of length 1, in their order. Waits for them.
  Result<std::vector<Embedding>> embed(const EmbedRequest& request);

  // Prefixes kept on purpose (see PrefixService). These wait for the disk.
  Result<PrefixInfo> prefix_info(const PrefixRef& prefix);
  Status pin_prefix(const PrefixRef& prefix);
  Status persist_prefix(const PrefixRef& prefix);
  // `others`: prefixes of the same fingerprint and namespace that stay where they are, and what
  // this one shares with them too. Fails with kClosed once the engine is closed: what is in the
  // workspace is another's then.
  Status discard_prefix(const PrefixRef& prefix, const std::vector<PrefixRef>& others);
  // Removes files of prefixes that are not kept on purpose, as many as have so many bytes: a
  // context's record may have no room on a full disk.
  Status make_disk_room(uint64_t bytes);
  Status move_prefix(const PrefixRef& prefix, Tier tier, const std::vector<PrefixRef>& others);
  // What all of them take together, in bytes by tier; what they share counts once, but for
  // the KV memory, of which each model has its own. Of each
  // only the tiers up to its own count: what it has in warmer ones is another's.
  // REQUIRES: as many tiers as prefixes
  Result<PrefixInfo> prefix_usage(const std::vector<PrefixRef>& prefixes,
                                  const std::vector<Tier>& tiers);
  Result<PrefixStates> read_prefix(const PrefixRef& prefix);
  Status write_prefix(const PrefixRef& prefix, std::vector<StateBytes> states);

  // Refuses what is new (kClosed) from now on and waits up to `timeout_ms` for what runs.
  // Returns whether nothing runs any more. `close` is still to be called.
  bool drain(int64_t timeout_ms);
  // Ends what runs (kClosed), unloads everything and frees the KV in RAM. Later calls fail with
  // kClosed.
  void close();
  // In a forked child, where the engine's threads are not and its mutexes may be held for ever:
  // later calls fail with kClosed, or find nothing, at once, and the engine must not be
  // destroyed.
  void abandon();

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace snapllm
