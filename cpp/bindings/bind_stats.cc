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
      .def_readonly("num_threads", &ModelInfo::num_threads)
      .def_readonly("flash_attention", &ModelInfo::flash_attention)
      .def_readonly("has_chat_template", &ModelInfo::has_chat_template)
      .def_readonly("supports_thinking", &ModelInfo::supports_thinking)
      .def_readonly("supports_tools", &ModelInfo::supports_tools)
      .def_readonly("active", &ModelInfo::active)
      .def_readonly("load_ms", &ModelInfo::load_ms)
      .def_readonly("loaded_at_ms", &ModelInfo::loaded_at_ms)
      .def_readonly("weights_bytes", &ModelInfo::weights_bytes)
      .def_readonly("kv_bytes", &ModelInfo::kv_bytes);

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
      .def_readonly("num_waiting", &ModelStats::num_waiting)
      .def_readonly("num_running", &ModelStats::num_running)
      .def_readonly("num_kv_cells_used", &ModelStats::num_kv_cells_used);

  py::class_<EngineStats>(module, "EngineStats")
      .def_readonly("models", &EngineStats::models)
      .def_readonly("num_switches", &EngineStats::num_switches);
}

}  // namespace snapllm::bindings
