// Turns exceptions into Status where they must not go further.
#pragma once

#include <exception>
#include <new>
#include <utility>

#include "snapllm/status.h"

namespace snapllm {

// Calls `function`, which returns a Status or a Result; an exception out of it becomes a Status
// with `code`, or with kOutOfMemory where memory ran out.
template <typename Function>
auto guard(StatusCode code, Function&& function) -> decltype(function()) {
  try {
    return std::forward<Function>(function)();
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kOutOfMemory, "not enough memory");
  } catch (const std::exception& e) {
    return Status(code, e.what());
  } catch (...) {
    return Status(code, "unknown error");
  }
}

}  // namespace snapllm
