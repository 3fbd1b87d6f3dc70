// Table of contents of snapllm._core.
#include <pybind11/stl.h>

#include "base/machine.h"
#include "bindings.h"
#include "chat/json_depth.h"
#include "chat/schema_grammar.h"
#include "snapllm/build.h"
#include "snapllm/probe.h"

PYBIND11_MODULE(_core, module) {
  using namespace snapllm::bindings;
  module.doc() = "C++ core of SnapLLM; use the snapllm package.";
  module.attr("__version__") = SNAPLLM_VERSION;
  module.def("system_info", &snapllm::system_info,
             "Backends and CPU features of this build in one line.");
  module.def("available_cpus", &snapllm::available_cpus, "CPUs this process may run on.");
  module.def(
      "json_depth",
      [](const pybind11::bytes& json) {
        const auto text = static_cast<std::string_view>(json);
        return without_gil([&] { return snapllm::json_depth(text); });
      },
      pybind11::arg("json"), "Deepest nesting of brackets and braces outside string literals.");
  module.def(
      "schema_grammar",
      [](const std::string& json_schema) {
        return snapllm::bindings::unwrap(
            without_gil([&] { return snapllm::schema_grammar(json_schema); }));
      },
      pybind11::arg("json_schema"), "What a JSON schema allows, in GBNF.");
  module.def(
      "probe_projector",
      [](const std::string& model_path, const std::string& mmproj_path) {
        snapllm::bindings::unwrap(without_gil(
            [&] { return snapllm::probe_projector(model_path, mmproj_path); }));
      },
      pybind11::arg("model_path"), pybind11::arg("mmproj_path"));
  module.def(
      "chat_templates",
      [](const std::string& model_path) {
        const std::vector<std::string> texts = snapllm::bindings::unwrap(
            without_gil([&] { return snapllm::chat_templates(model_path); }));
        return std::vector<pybind11::bytes>(texts.begin(), texts.end());
      },
      pybind11::arg("model_path"), "The chat templates that a model's file brings.");
  module.def(
      "probe_chat_template",
      [](const std::string& text) {
        without_gil([&] { snapllm::probe_chat_template(text); });
      },
      pybind11::arg("text"));
  bind_options(module);
  bind_request(module);
  bind_chat(module);
  bind_embedding(module);
  bind_output(module);
  bind_prefix(module);
  bind_stats(module);
  bind_engine(module);
}
