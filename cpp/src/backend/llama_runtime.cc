#include "backend/llama_runtime.h"

#include <cstdlib>
#include <mutex>
#include <stdexcept>

#include "ggml.h"
#include "llama.h"
#include "log.h"
#include "mtmd-helper.h"

namespace snapllm {
namespace {

thread_local LlamaLogCapture* active_capture = nullptr;
thread_local bool is_trapping = false;

void on_llama_log(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR && active_capture != nullptr) active_capture->append(text);
}

// Called by ggml right before it would abort.
void on_assertion(const char* message) {
  if (is_trapping) throw std::runtime_error(message);
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
  });
}

LlamaLogCapture::LlamaLogCapture() : outer_(active_capture) { active_capture = this; }

LlamaLogCapture::~LlamaLogCapture() { active_capture = outer_; }

LlamaAssertTrap::LlamaAssertTrap() : outer_(is_trapping) { is_trapping = true; }

LlamaAssertTrap::~LlamaAssertTrap() { is_trapping = outer_; }

}  // namespace snapllm
