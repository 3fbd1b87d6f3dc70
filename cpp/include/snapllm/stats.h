// Facts and counters of a model and of the engine. Counted, never estimated,
// unless a field's comment says so.
#pragma once

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
  int32_t max_hot_tokens = 0;     // KV cells they may take
  int32_t max_parked_tokens = 0;  // of these by prefixes kept without being asked for
  int32_t num_kv_sequences = 0;   // sequence ids of the KV memory, scratch included
  std::string fingerprint;        // what its KV is stored under
  std::string kv_kind;            // "blocks", or "checkpoints" where it cannot be cut
  int32_t num_threads = 0;
  bool flash_attention = false;
  int32_t embedding_size = 0;  // components of an embedding
  bool supports_generation = true;  // false: the model only computes embeddings
  bool has_chat_template = false;
  bool supports_thinking = false;
  bool supports_tools = false;
  bool active = false;
  double load_ms = 0.0;
  int64_t loaded_at_ms = 0;  // Unix time
  uint64_t weights_bytes = 0;
  uint64_t kv_bytes = 0;
};

struct ModelStats {
  std::string id;
  uint64_t num_requests = 0;
  uint64_t num_finished = 0;
  uint64_t num_cancelled = 0;
  uint64_t num_failed = 0;
  uint64_t num_prompt_tokens = 0;
  uint64_t num_cached_tokens = 0;
  uint64_t num_generated_tokens = 0;
  uint64_t num_steps = 0;
  int32_t num_waiting = 0;
  int32_t num_running = 0;
  int32_t num_kv_cells_used = 0;  // reserved by running sequences and hot prefixes
  int32_t num_hot_prefixes = 0;
  int32_t num_hot_tokens = 0;  // KV cells of hot prefixes
  uint64_t num_hot_hits = 0;   // tokens reused from each tier
  uint64_t num_warm_hits = 0;
  uint64_t num_cold_hits = 0;
  uint64_t num_failed_restores = 0;
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
  uint64_t num_damaged = 0;     // files that were of no use
  uint64_t num_dropped = 0;     // pieces not kept: no room, or the writer is behind
};

struct EngineStats {
  std::vector<ModelStats> models;
  KvStoreStats kv_store;
  uint64_t num_switches = 0;
};

}  // namespace snapllm
