#include <pybind11/stl.h>

#include "bindings.h"
#include "snapllm/embedding.h"

namespace snapllm::bindings {
namespace {

std::string pooling_name(const EmbedRequest& request) {
  switch (request.pooling) {
    case Pooling::kMean: return "mean";
    case Pooling::kLast: return "last";
    case Pooling::kAuto: break;
  }
  return "auto";
}

void set_pooling(EmbedRequest& request, const std::string& name) {
  if (name == "auto") request.pooling = Pooling::kAuto;
  else if (name == "mean") request.pooling = Pooling::kMean;
  else if (name == "last") request.pooling = Pooling::kLast;
  else throw_status({StatusCode::kInvalidRequest, "pooling must be auto, mean or last"});
}

}  // namespace

void bind_embedding(py::module_& module) {
  py::class_<EmbedRequest>(module, "EmbedRequest")
      .def(keyword_constructor<EmbedRequest>())
      .def_readwrite("model_id", &EmbedRequest::model_id)
      .def_readwrite("inputs", &EmbedRequest::inputs)
      .def_property("pooling", &pooling_name, &set_pooling)
      .def_readwrite("dimensions", &EmbedRequest::dimensions);
}

}  // namespace snapllm::bindings
