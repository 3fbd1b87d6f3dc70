// Options of the engine and of a model. Each is defined here once; the bindings
// expose the same names, and a test holds the two together.
#pragma once

#include <cstdint>
#include <string>

namespace snapllm {

struct EngineOptions {
  // Threads the compute thread may use; 0 = the machine's physical cores.
  int32_t num_threads = 0;
  // Bytes that models, KV in RAM and whatever else is charged may take together; 0 =
  // what the machine has free when the engine starts.
  uint64_t memory_budget_bytes = 0;
  // Seconds after which a model that nobody uses is evicted, to come back when it is
  // asked for; 0 = never for that reason.
  double keep_alive_s = 0.0;
  // Requests waiting per model before new ones are refused with queue_full.
  int32_t max_queued_requests = 256;
  // Folder in which the KV of prompts outlives the process; empty = it does not. One
  // process at a time may have it.
  std::string workspace;
  // Bounds of the KV kept in RAM and on disk; 0 = an eighth of the free memory, and 20 GiB or
  // a quarter of the space that is free or already taken by it. What is pinned may be more
  // than the disk's.
  uint64_t kv_ram_bytes = 0;
  uint64_t kv_disk_bytes = 0;
};

enum class FlashAttention { kAuto, kOn, kOff };

struct ModelOptions {
  std::string path;
  // The projector file of a model that takes images or audio; empty = text only.
  std::string mmproj_path;
  // Layers on the GPU; -1 = all. Ignored by a build without one.
  int32_t gpu_layers = -1;
  // Longest prompt plus answer of one request in tokens; 0 = what the model was
  // trained for, as far as memory allows.
  int32_t context_size = 0;
  // KV cells shared by all sequences; 0 = chosen from context_size and memory.
  int32_t kv_cells = 0;
  // Sequences decoded together at most (1..64).
  int32_t max_sequences = 64;
  // Tokens of one decode call and of one physical batch.
  int32_t batch_tokens = 2048;
  int32_t ubatch_tokens = 512;
  // Threads for this model; 0 = for each step as many as compute it fastest, at most the
  // engine's.
  int32_t num_threads = 0;
  // kAuto: on wherever answers do not come to depend on their batch by it; on a GPU the
  // backend's own choice.
  FlashAttention flash_attention = FlashAttention::kAuto;
  // KV cache type: "f16", "q8_0" or "f32".
  std::string kv_type = "f16";
  // Tokens guessed ahead from the text so far and checked in one batch; 0 = none. Only
  // with full attention: other models cannot take a wrong guess back.
  int32_t draft_tokens = 0;
  // Jinja chat template that replaces the file's own; empty = the file's.
  std::string chat_template;
  // Never evicted, whoever else wants the memory.
  bool pinned = false;
  // As EngineOptions::keep_alive_s, for this model; -1 = the engine's.
  double keep_alive_s = -1.0;
};

}  // namespace snapllm
