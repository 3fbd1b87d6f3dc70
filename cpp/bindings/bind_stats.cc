#include <pybind11/stl.h>

#include "bindings.h"
#include "snapllm/stats.h"

namespace snapllm::bindings {

void bind_stats(py::module_& module) {
  py::class_<ModelInfo>(module, "ModelInfo")
      .def_readonly("id", &ModelInfo::id)
      .def_readonly("path", &ModelInfo::path)
      .def_readonly("name", &ModelInfo::name)
      .def_readonly("architecture", &ModelInfo::architecture)
      .def_readonly("quantization", &ModelInfo::quantization)
      .def_readonly("description", &ModelInfo::description)
      .def_readonly("file_bytes", &ModelInfo::file_bytes)
      .def_readonly("num_parameters", &ModelInfo::num_parameters)
      .def_readonly("num_layers", &ModelInfo::num_layers)
      .def_readonly("vocab_size", &ModelInfo::vocab_size)
      .def_readonly("train_context_size", &ModelInfo::train_context_size)
      .def_readonly("context_size", &ModelInfo::context_size)
      .def_readonly("kv_cells", &ModelInfo::kv_cells)
      .def_readonly("max_sequences", &ModelInfo::max_sequences)
      .def_readonly("num_hot_sequences", &ModelInfo::num_hot_sequences)
      .def_readonly("max_hot_tokens", &ModelInfo::max_hot_tokens)
      .def_readonly("max_parked_tokens", &ModelInfo::max_parked_tokens)
      .def_readonly("num_kv_sequences", &ModelInfo::num_kv_sequences)
      .def_readonly("fingerprint", &ModelInfo::fingerprint)
      .def_readonly("kv_kind", &ModelInfo::kv_kind)
      .def_readonly("num_threads", &ModelInfo::num_threads)
      .def_readonly("gpu_layers", &ModelInfo::gpu_layers)
      .def_readonly("flash_attention", &ModelInfo::flash_attention)
      .def_readonly("embedding_size", &ModelInfo::embedding_size)
      .def_readonly("supports_generation", &ModelInfo::supports_generation)
      .def_readonly("has_chat_template", &ModelInfo::has_chat_template)
      .def_readonly("supports_thinking", &ModelInfo::supports_thinking)
      .def_readonly("supports_tools", &ModelInfo::supports_tools)
      .def_readonly("active", &ModelInfo::active)
      .def_readonly("state", &ModelInfo::state)
      .def_readonly("pinned", &ModelInfo::pinned)
      .def_readonly("keep_alive_s", &ModelInfo::keep_alive_s)
      .def_readonly("load_ms", &ModelInfo::load_ms)
      .def_readonly("loaded_at_ms", &ModelInfo::loaded_at_ms)
      .def_readonly("weights_bytes", &ModelInfo::weights_bytes)
      .def_readonly("kv_bytes", &ModelInfo::kv_bytes)
      .def_readonly("compute_bytes", &ModelInfo::compute_bytes)
      .def_readonly("gpu_bytes", &ModelInfo::gpu_bytes);

  py::class_<LatencyHistogram>(module, "LatencyHistogram")
      .def_property_readonly_static(
          "bounds_ms", [](const py::object&) { return LatencyHistogram::kBoundsMs; })
      .def_readonly("counts", &LatencyHistogram::counts)
      .def_readonly("sum_ms", &LatencyHistogram::sum_ms)
      .def_readonly("count", &LatencyHistogram::count);

  py::class_<ModelStats>(module, "ModelStats")
      .def_readonly("id", &ModelStats::id)
      .def_readonly("num_requests", &ModelStats::num_requests)
      .def_readonly("num_finished", &ModelStats::num_finished)
      .def_readonly("num_cancelled", &ModelStats::num_cancelled)
      .def_readonly("num_failed", &ModelStats::num_failed)
      .def_readonly("num_prompt_tokens", &ModelStats::num_prompt_tokens)
      .def_readonly("num_cached_tokens", &ModelStats::num_cached_tokens)
      .def_readonly("num_generated_tokens", &ModelStats::num_generated_tokens)
      .def_readonly("num_steps", &ModelStats::num_steps)
      .def_readonly("num_batch_tokens", &ModelStats::num_batch_tokens)
      .def_readonly("num_batch_sequences", &ModelStats::num_batch_sequences)
      .def_readonly("queue_time", &ModelStats::queue_time)
      .def_readonly("time_to_first_token", &ModelStats::time_to_first_token)
      .def_readonly("inter_token_latency", &ModelStats::inter_token_latency)
      .def_readonly("resident", &ModelStats::resident)
      .def_readonly("num_loads", &ModelStats::num_loads)
      .def_readonly("num_evictions", &ModelStats::num_evictions)
      .def_readonly("load_ms", &ModelStats::load_ms)
      .def_readonly("num_waiting", &ModelStats::num_waiting)
      .def_readonly("num_running", &ModelStats::num_running)
      .def_readonly("num_kv_cells_used", &ModelStats::num_kv_cells_used)
      .def_readonly("num_hot_prefixes", &ModelStats::num_hot_prefixes)
      .def_readonly("num_hot_tokens", &ModelStats::num_hot_tokens)
      .def_readonly("num_hot_hits", &ModelStats::num_hot_hits)
      .def_readonly("num_warm_hits", &ModelStats::num_warm_hits)
      .def_readonly("num_cold_hits", &ModelStats::num_cold_hits)
      .def_readonly("num_failed_restores", &ModelStats::num_failed_restores);

  py::class_<KvStoreStats>(module, "KvStoreStats")
      .def_readonly("num_pieces", &KvStoreStats::num_pieces)
      .def_readonly("ram_bytes", &KvStoreStats::ram_bytes)
      .def_readonly("disk_bytes", &KvStoreStats::disk_bytes)
      .def_readonly("max_ram_bytes", &KvStoreStats::max_ram_bytes)
      .def_readonly("max_disk_bytes", &KvStoreStats::max_disk_bytes)
      .def_readonly("num_stored", &KvStoreStats::num_stored)
      .def_readonly("num_written", &KvStoreStats::num_written)
      .def_readonly("num_loaded", &KvStoreStats::num_loaded)
      .def_readonly("num_ram_evictions", &KvStoreStats::num_ram_evictions)
      .def_readonly("num_disk_evictions", &KvStoreStats::num_disk_evictions)
      .def_readonly("num_write_failures", &KvStoreStats::num_write_failures)
      .def_readonly("num_damaged", &KvStoreStats::num_damaged)
      .def_readonly("num_dropped", &KvStoreStats::num_dropped);

  py::class_<MemoryStats>(module, "MemoryStats")
      .def_readonly("budget_bytes", &MemoryStats::budget_bytes)
      .def_readonly("used_bytes", &MemoryStats::used_bytes)
      .def_readonly("models_bytes", &MemoryStats::models_bytes)
      .def_readonly("snapshot_bytes", &MemoryStats::snapshot_bytes)
      .def_readonly("external_bytes", &MemoryStats::external_bytes)
      .def_readonly("num_evictions", &MemoryStats::num_evictions)
      .def_readonly("num_reloads", &MemoryStats::num_reloads);

  py::class_<EngineStats>(module, "EngineStats")
      .def_readonly("models", &EngineStats::models)
      .def_readonly("memory", &EngineStats::memory)
      .def_readonly("kv_store", &EngineStats::kv_store)
      .def_readonly("num_switches", &EngineStats::num_switches);
}

}  // namespace snapllm::bindings
