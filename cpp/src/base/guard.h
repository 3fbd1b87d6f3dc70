// Turns exceptions into Status where they must not go further.
#pragma once

#include <exception>
#include <new>
#include <system_error>
#include <utility>

#include "snapllm/status.h"

namespace snapllm {

// Calls `function`, which returns a Status or a Result; an exception out of it becomes a Status
// with `code`, or with kOutOfMemory where memory ran out, or threads, whose stacks are memory.
template <typename Function>
auto guard(StatusCode code, Function&& function) -> decltype(function()) {
  try {
    return std::forward<Function>(function)();
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kOutOfMemory, "not enough memory");
  } catch (const std::system_error& e) {
    const bool is_full = e.code() == std::errc::resource_unavailable_try_again;
    return is_full ? Status(StatusCode::kOutOfMemory, "not enough memory for a thread")
                   : Status(code, e.what());
  } catch (const std::exception& e) {
    return Status(code, e.what());
  } catch (...) {
    return Status(code, "unknown error");
  }
}

}  // namespace snapllm
