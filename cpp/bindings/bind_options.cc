#include "bindings.h"
#include "snapllm/options.h"

namespace snapllm::bindings {
namespace {

std::string flash_attention_name(const ModelOptions& options) {
  switch (options.flash_attention) {
    case FlashAttention::kOn: return "on";
    case FlashAttention::kOff: return "off";
    case FlashAttention::kAuto: break;
  }
  return "auto";
}

void set_flash_attention(ModelOptions& options, const std::string& name) {
  if (name == "auto") options.flash_attention = FlashAttention::kAuto;
  else if (name == "on") options.flash_attention = FlashAttention::kOn;
  else if (name == "off") options.flash_attention = FlashAttention::kOff;
  else throw_status({StatusCode::kInvalidRequest, "flash_attention must be auto, on or off"});
}

}  // namespace

void bind_options(py::module_& module) {
  py::class_<EngineOptions>(module, "EngineOptions")
      .def(keyword_constructor<EngineOptions>())
      .def_readwrite("num_threads", &EngineOptions::num_threads)
      .def_readwrite("memory_budget_bytes", &EngineOptions::memory_budget_bytes)
      .def_readwrite("keep_alive_s", &EngineOptions::keep_alive_s)
      .def_readwrite("max_queued_requests", &EngineOptions::max_queued_requests)
      .def_readwrite("workspace", &EngineOptions::workspace)
      .def_readwrite("kv_ram_bytes", &EngineOptions::kv_ram_bytes)
      .def_readwrite("kv_disk_bytes", &EngineOptions::kv_disk_bytes);

  py::class_<ModelOptions>(module, "ModelOptions")
      .def(keyword_constructor<ModelOptions>())
      .def_readwrite("path", &ModelOptions::path)
      .def_readwrite("mmproj_path", &ModelOptions::mmproj_path)
      .def_readwrite("gpu_layers", &ModelOptions::gpu_layers)
      .def_readwrite("context_size", &ModelOptions::context_size)
      .def_readwrite("kv_cells", &ModelOptions::kv_cells)
      .def_readwrite("max_sequences", &ModelOptions::max_sequences)
      .def_readwrite("batch_tokens", &ModelOptions::batch_tokens)
      .def_readwrite("ubatch_tokens", &ModelOptions::ubatch_tokens)
      .def_readwrite("num_threads", &ModelOptions::num_threads)
      .def_readwrite("draft_tokens", &ModelOptions::draft_tokens)
      .def_property("flash_attention", &flash_attention_name, &set_flash_attention)
      .def_readwrite("kv_type", &ModelOptions::kv_type)
      .def_readwrite("chat_template", &ModelOptions::chat_template)
      .def_readwrite("pinned", &ModelOptions::pinned)
      .def_readwrite("keep_alive_s", &ModelOptions::keep_alive_s);
}

}  // namespace snapllm::bindings
