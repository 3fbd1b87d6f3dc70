#include "backend/llama_runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <stdexcept>

#include "backend/cpu_attention.h"
#include "ggml.h"
#include "llama.h"
#include "log.h"
#include "mtmd-helper.h"

namespace snapllm {
namespace {

thread_local LlamaLogCapture* active_capture = nullptr;
thread_local bool is_trapping = false;
// The last errors that nothing captured.
constexpr size_t kMaxUncapturedBytes = 4096;
thread_local std::string uncaptured_errors;

void on_llama_log(ggml_log_level level, const char* text, void*) {
  if (level != GGML_LOG_LEVEL_ERROR) return;
  if (active_capture != nullptr) {
    active_capture->append(text);
  } else {
    if (uncaptured_errors.size() > kMaxUncapturedBytes) uncaptured_errors.clear();
    uncaptured_errors += text;
  }
}

// Called by ggml right before it aborts; whoever finds the process gone needs the reason.
void on_assertion(const char* message) {
  if (is_trapping) throw std::runtime_error(message);
  const std::string log = active_capture != nullptr ? active_capture->errors() : uncaptured_errors;
  std::fprintf(stderr, "%s\n%s", message, log.c_str());
}

}  // namespace

void init_llama_runtime() {
  static std::once_flag once;
  std::call_once(once, [] {
    // ggml's abort handler would start a debugger to print a backtrace.
    setenv("GGML_NO_BACKTRACE", "1", 0);
    llama_log_set(on_llama_log, nullptr);
    mtmd_helper_log_set(on_llama_log, nullptr);
    ggml_set_abort_callback(on_assertion);
    common_log_pause(common_log_main());
    common_log_set_verbosity_thold(-1);
    llama_backend_init();
    install_cpu_attention();
  });
}

LlamaLogCapture::LlamaLogCapture() : outer_(active_capture) { active_capture = this; }

LlamaLogCapture::~LlamaLogCapture() { active_capture = outer_; }

std::string LlamaLogCapture::errors() const {
  std::string line = errors_;
  while (!line.empty() && line.back() == '\n') line.pop_back();
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

LlamaAssertTrap::LlamaAssertTrap() : outer_(is_trapping) { is_trapping = true; }

LlamaAssertTrap::~LlamaAssertTrap() { is_trapping = outer_; }

}  // namespace snapllm
