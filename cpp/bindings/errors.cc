#include "base/utf8.h"
#include "bindings.h"

namespace snapllm::bindings {

py::object to_exception(const Status& status) {
  return py::module_::import("snapllm.errors")
      .attr("from_status")(std::string(status_code_name(status.code())),
                           valid_utf8(status.message()));
}

void throw_status(const Status& status) {
  const py::object exception = to_exception(status);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw py::error_already_set();
}

}  // namespace snapllm::bindings
