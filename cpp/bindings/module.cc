// Table of contents of snapllm._core.
#include "bindings.h"
#include "snapllm/build.h"

PYBIND11_MODULE(_core, module) {
  using namespace snapllm::bindings;
  module.doc() = "C++ core of SnapLLM; use the snapllm package.";
  module.attr("__version__") = SNAPLLM_VERSION;
  module.def("system_info", &snapllm::system_info,
             "Backends and CPU features of this build in one line.");
  bind_options(module);
  bind_request(module);
  bind_chat(module);
  bind_embedding(module);
  bind_output(module);
  bind_prefix(module);
  bind_stats(module);
  bind_engine(module);
}
