// What the binding files share.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "snapllm/prefix.h"
#include "snapllm/status.h"

namespace snapllm::bindings {

namespace py = pybind11;

void bind_options(py::module_& module);
void bind_request(py::module_& module);
void bind_chat(py::module_& module);
void bind_embedding(py::module_& module);
void bind_output(py::module_& module);
void bind_prefix(py::module_& module);
void bind_stats(py::module_& module);
void bind_engine(py::module_& module);

// The tier of that name; throws InvalidRequestError on another.
Tier tier_of(const std::string& name);

// The Python exception of a Status: an instance of snapllm.errors.SnapLLMError.
py::object to_exception(const Status& status);

// The only place where a failure becomes a Python exception.
// REQUIRES: !status.ok(); the GIL is held.
[[noreturn]] void throw_status(const Status& status);

inline void unwrap(const Status& status) {
  if (!status.ok()) throw_status(status);
}

template <typename T>
T unwrap(Result<T> result) {
  if (!result.ok()) throw_status(result.status());
  return std::move(result).value();
}

// Runs `function` without the GIL.
template <typename Function>
auto without_gil(Function&& function) {
  py::gil_scoped_release release;
  return std::forward<Function>(function)();
}

// A constructor from keyword arguments that are the struct's attributes; an
// unknown one raises TypeError.
template <typename Struct>
auto keyword_constructor() {
  return py::init([](const py::kwargs& kwargs) {
    Struct value;
    py::object self = py::cast(&value, py::return_value_policy::reference);
    for (const auto& [name, argument] : kwargs) {
      if (!py::hasattr(self, name)) {
        throw py::type_error("unexpected keyword argument '" + py::str(name).cast<std::string>() +
                             "'");
      }
      py::setattr(self, name, argument);
    }
    return value;
  });
}

}  // namespace snapllm::bindings
