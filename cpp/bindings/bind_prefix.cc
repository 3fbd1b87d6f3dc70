#include <pybind11/stl.h>

#include "bindings.h"
#include "snapllm/prefix.h"

namespace snapllm::bindings {
namespace {

py::object tier_name(const PrefixInfo& info) {
  switch (info.tier) {
    case Tier::kHot: return py::str("hot");
    case Tier::kWarm: return py::str("warm");
    case Tier::kCold: return py::str("cold");
    case Tier::kNone: break;
  }
  return py::none();
}

}  // namespace

Tier tier_of(const std::string& name) {
  if (name == "hot") return Tier::kHot;
  if (name == "warm") return Tier::kWarm;
  if (name != "cold") throw_status({StatusCode::kInvalidRequest, "tier must be hot, warm or cold"});
  return Tier::kCold;
}

void bind_prefix(py::module_& module) {
  py::class_<PrefixRef>(module, "PrefixRef")
      .def(keyword_constructor<PrefixRef>())
      .def_readwrite("model_id", &PrefixRef::model_id)
      .def_readwrite("fingerprint", &PrefixRef::fingerprint)
      .def_readwrite("kv_kind", &PrefixRef::kv_kind)
      .def_readwrite("cache_namespace", &PrefixRef::cache_namespace)
      .def_readwrite("tokens", &PrefixRef::tokens);

  py::class_<PrefixInfo>(module, "PrefixInfo")
      .def_property_readonly("tier", &tier_name)
      .def_readonly("is_on_disk", &PrefixInfo::is_on_disk)
      .def_readonly("hot_bytes", &PrefixInfo::hot_bytes)
      .def_readonly("ram_bytes", &PrefixInfo::ram_bytes)
      .def_readonly("disk_bytes", &PrefixInfo::disk_bytes);
}

}  // namespace snapllm::bindings
