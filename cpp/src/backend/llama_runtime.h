// Process-wide state of llama.cpp: initialisation, log, and the guard that turns
// its exceptions into Status.
#pragma once

#include <string>
#include <utility>

#include "base/guard.h"
#include "snapllm/status.h"

namespace snapllm {

// Initialises llama.cpp once per process; cheap afterwards.
void init_llama_runtime();

// Collects what llama.cpp logs as errors on this thread while it lives, so that a refusal
// can say why.
class LlamaLogCapture {
 public:
  LlamaLogCapture();
  ~LlamaLogCapture();
  LlamaLogCapture(const LlamaLogCapture&) = delete;
  LlamaLogCapture& operator=(const LlamaLogCapture&) = delete;
  // The errors so far in one line; empty when there were none.
  std::string errors() const;
  void append(const char* text) { errors_ += text; }

 private:
  LlamaLogCapture* const outer_;
  std::string errors_;
};

// While it lives, a failed assertion in llama.cpp on this thread is thrown as an
// exception instead of ending the process. For what builds up new objects only: what
// the assertion interrupted is left as it is and must not be used again.
class LlamaAssertTrap {
 public:
  LlamaAssertTrap();
  ~LlamaAssertTrap();
  LlamaAssertTrap(const LlamaAssertTrap&) = delete;
  LlamaAssertTrap& operator=(const LlamaAssertTrap&) = delete;

 private:
  const bool outer_;
};

// Calls `function`, which returns a Status or a Result; an exception out of
// llama.cpp becomes a Status with `code`.
template <typename Function>
auto guard_llama(StatusCode code, Function&& function) -> decltype(function()) {
  return guard(code, std::forward<Function>(function));
}

}  // namespace snapllm
