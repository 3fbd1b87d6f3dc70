// Facts and counters of a model and of the engine. Counted, never estimated,
// unless a field's comment says so.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace snapllm {

struct ModelInfo {
  std::string id;
  std::string path;
  std::string name;          // general.name of the file, or the id
  std::string architecture;  // for example "qwen3"
  std::string quantization;  // for example "Q8_0"
  std::string description;   // the backend's one-line description
  uint64_t file_bytes = 0;
  uint64_t num_parameters = 0;
  int32_t num_layers = 0;
  int32_t vocab_size = 0;
  int32_t train_context_size = 0;
  int32_t context_size = 0;  // longest prompt plus answer of one request
  int32_t kv_cells = 0;
  int32_t max_sequences = 0;
  int32_t num_hot_sequences = 0;  // hot prefixes that can be kept beside the running
  int32_t max_hot_tokens = 0;     // KV cells that those made hot on purpose may take
  int32_t max_foreign_tokens = 0;  // and all that a running request does not use
  bool saves_when_idle = false;    // what stays hot is stored when nothing computes
  bool can_stop = false;           // computing a prompt can stop half-way
  int32_t num_kv_sequences = 0;   // sequence ids of the KV memory, scratch included
  std::string fingerprint;        // what its KV is stored under
  std::string kv_kind;            // "blocks", or "checkpoints" where it cannot be cut
  int32_t num_threads = 0;  // that decode one token fastest, as measured when it was loaded
  int32_t gpu_layers = 0;  // as asked for; -1 = all
  bool flash_attention = false;
  int32_t draft_tokens = 0;    // guessed ahead at most
  int32_t embedding_size = 0;  // components of an embedding
  bool supports_generation = true;  // false: the model only computes embeddings
  std::string mmproj_path;  // of the projector; empty = text only
  bool has_vision = false;  // takes images
  bool has_audio = false;
  uint64_t projector_bytes = 0;  // weights and buffers
  bool has_chat_template = false;
  bool supports_thinking = false;
  bool supports_tools = false;
  bool active = false;
  // "resident", "loading" (again), "evicting", "evicted" or "unloading". All but the
  // last take requests.
  std::string state = "resident";
  bool pinned = false;
  double keep_alive_s = -1.0;
  double load_ms = 0.0;      // of the last load
  int64_t loaded_at_ms = 0;  // Unix time
  uint64_t weights_bytes = 0;  // perhaps shared with other ids of the same file
  uint64_t kv_bytes = 0;
  uint64_t compute_bytes = 0;
  uint64_t gpu_bytes = 0;  // of all these, what is on GPUs
};

// A model went out of memory or came back, which the engine does by itself.
struct ResidencyEvent {
  uint64_t number = 0;  // from 1 on
  std::string model_id;
  bool has_returned = false;  // or else it was evicted
};

// How long something took, counted in buckets.
struct LatencyHistogram {
  static constexpr std::array<double, 16> kBoundsMs = {0.5, 1,   2,   5,    10,   20,   50,   100,
                                                       200, 500, 1000, 2000, 5000, 10000, 30000, 60000};
  // Of each bound, those at most as long and longer than the bound before; then the rest.
  std::array<uint64_t, kBoundsMs.size() + 1> counts{};
  double sum_ms = 0.0;
  uint64_t count = 0;

  void add(double ms) {
    size_t bucket = 0;
    while (bucket < kBoundsMs.size() && ms > kBoundsMs[bucket]) ++bucket;
    ++counts[bucket];
    sum_ms += ms;
    ++count;
  }
  void add(const LatencyHistogram& other) {
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
    sum_ms += other.sum_ms;
    count += other.count;
  }
};

// A request is one prompt on its way to one answer, or one input on its way to its vector.
struct ModelStats {
  std::string id;
  uint64_t num_requests = 0;
  uint64_t num_finished = 0;
  uint64_t num_cancelled = 0;
  uint64_t num_failed = 0;
  uint64_t num_prompt_tokens = 0;
  uint64_t num_cached_tokens = 0;
  uint64_t num_generated_tokens = 0;
  uint64_t num_embedded_tokens = 0;  // of inputs; no prompt tokens, since none can be cached
  uint64_t num_encoded_media = 0;  // pieces of images and sound; those reused are not
  uint64_t num_steps = 0;         // batches computed, those of embeddings not among them
  uint64_t num_batch_tokens = 0;  // in all batches together
  uint64_t num_batch_sequences = 0;
  LatencyHistogram queue_time;            // submit to admission, of an input to its turn
  LatencyHistogram time_to_first_token;   // submit to first token
  LatencyHistogram inter_token_latency;   // token to token of one request
  bool resident = false;
  uint64_t num_loads = 0;      // the first, and all returns from eviction
  uint64_t num_evictions = 0;
  double load_ms = 0.0;        // of all loads together
  // Below: now.
  int32_t num_waiting = 0;
  int32_t num_running = 0;
  int32_t num_kv_cells_used = 0;  // reserved by running sequences and hot prefixes
  int32_t num_hot_prefixes = 0;
  int32_t num_hot_tokens = 0;  // KV cells of hot prefixes
  uint64_t num_hot_hits = 0;   // tokens reused from each tier
  uint64_t num_warm_hits = 0;
  uint64_t num_cold_hits = 0;
  uint64_t num_failed_restores = 0;
  uint64_t num_draft_tokens = 0;  // guessed ahead, and of these what was right
  uint64_t num_accepted_draft_tokens = 0;
  uint64_t num_stopped_steps = 0;  // that gave way to something new, which cost what they computed
  uint64_t num_preemptions = 0;  // of requests whose KV cells another needed; they went on later

  // Adds what counts up, not what is now.
  void add_counters(const ModelStats& other);
};

// Of the KV store, since the engine began.
struct KvStoreStats {
  uint64_t num_pieces = 0;
  uint64_t ram_bytes = 0;       // of states in RAM
  uint64_t disk_bytes = 0;      // of files
  uint64_t max_ram_bytes = 0;
  uint64_t max_disk_bytes = 0;
  uint64_t num_stored = 0;      // pieces put
  uint64_t num_written = 0;     // files written
  uint64_t num_loaded = 0;      // states read from disk
  uint64_t num_ram_evictions = 0;
  uint64_t num_disk_evictions = 0;
  uint64_t num_write_failures = 0;
  uint64_t num_read_failures = 0;  // files and folders that could not be read, and were left
  uint64_t num_damaged = 0;     // files that were of no use, and removed
  uint64_t num_dropped = 0;     // pieces not kept, or in RAM only: no room, or the writer is behind
};

// Bytes of the memory that models are loaded into.
struct MemoryStats {
  uint64_t budget_bytes = 0;
  uint64_t used_bytes = 0;      // of these:
  uint64_t models_bytes = 0;    // weights (shared ones once), KV memory and buffers
  uint64_t snapshot_bytes = 0;  // KV of prompts kept in RAM
  uint64_t external_bytes = 0;  // charged from outside: image models
  uint64_t num_evictions = 0;
  uint64_t num_reloads = 0;     // models that came back for a request
};

struct EngineStats {
  std::vector<ModelStats> models;
  MemoryStats memory;
  KvStoreStats kv_store;
  uint64_t num_switches = 0;
};

}  // namespace snapllm
