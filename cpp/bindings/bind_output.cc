#include <poll.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <system_error>

#include "bindings.h"
#include "snapllm/output.h"
#include "snapllm/output_queue.h"

namespace snapllm::bindings {
namespace {

py::object finish_reason_name(const RequestOutput& output) {
  switch (output.finish_reason) {
    case FinishReason::kNone: return py::none();
    case FinishReason::kStop: return py::str("stop");
    case FinishReason::kLength: return py::str("length");
    case FinishReason::kCancelled: return py::str("cancelled");
    case FinishReason::kError: return py::str("error");
  }
  return py::none();
}

py::object error_of(const RequestOutput& output) {
  return output.error.ok() ? py::none() : to_exception(output.error);
}

void check_process(const OutputQueue& queue) {
  if (queue.is_of_this_process()) return;
  throw_status({StatusCode::kClosed, "the engine belongs to the process this one was forked from"});
}

std::shared_ptr<OutputQueue> make_queue() {
  try {
    return std::make_shared<OutputQueue>();
  } catch (const std::system_error& error) {
    throw_status({StatusCode::kGenerationFailed,
                  "nothing can be had to wait for the answer with (" + std::string(error.what()) +
                      "): raise the limit of open files"});
  }
}

// Sleeps until outputs are waiting. A signal ends the sleep, so that Ctrl-C is
// seen without waking up to look for it.
void wait_for_outputs(const OutputQueue& queue) {
  check_process(queue);
  for (;;) {
    pollfd watched{queue.fd(), POLLIN, 0};
    const int ready = without_gil([&] { return ::poll(&watched, 1, -1); });
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) {
      PyErr_SetFromErrno(PyExc_OSError);
      throw py::error_already_set();
    }
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

}  // namespace

void bind_output(py::module_& module) {
  py::class_<RequestTimings>(module, "RequestTimings")
      .def_readonly("queue_ms", &RequestTimings::queue_ms)
      .def_readonly("prefill_ms", &RequestTimings::prefill_ms)
      .def_readonly("decode_ms", &RequestTimings::decode_ms);

  py::class_<TokenLogprobs::Alternative>(module, "TokenAlternative")
      .def_readonly("token", &TokenLogprobs::Alternative::token)
      .def_property_readonly("bytes",
                             [](const TokenLogprobs::Alternative& a) { return py::bytes(a.bytes); })
      .def_readonly("logprob", &TokenLogprobs::Alternative::logprob);

  py::class_<TokenLogprobs>(module, "TokenLogprobs")
      .def_readonly("token", &TokenLogprobs::token)
      .def_property_readonly("bytes", [](const TokenLogprobs& t) { return py::bytes(t.bytes); })
      .def_readonly("logprob", &TokenLogprobs::logprob)
      .def_readonly("top", &TokenLogprobs::top);

  py::class_<CacheReport>(module, "CacheReport")
      .def_readonly("num_hot_tokens", &CacheReport::num_hot_tokens)
      .def_readonly("num_warm_tokens", &CacheReport::num_warm_tokens)
      .def_readonly("num_cold_tokens", &CacheReport::num_cold_tokens)
      .def_readonly("restore_ms", &CacheReport::restore_ms)
      .def_property_readonly("differs_at", [](const CacheReport& r) { return r.difference.at; })
      .def_property_readonly("cached_token",
                             [](const CacheReport& r) { return r.difference.cached_token; });

  py::class_<RequestOutput>(module, "RequestOutput")
      .def_readonly("request_id", &RequestOutput::request_id)
      .def_readonly("text", &RequestOutput::text)
      .def_readonly("tokens", &RequestOutput::tokens)
      .def_readonly("logprobs", &RequestOutput::logprobs)
      .def_readonly("prompt_logprobs", &RequestOutput::prompt_logprobs)
      .def_property_readonly("finish_reason", &finish_reason_name)
      .def_readonly("stop_sequence", &RequestOutput::stop_sequence)
      .def_property_readonly("error", &error_of)
      .def_readonly("num_prompt_tokens", &RequestOutput::num_prompt_tokens)
      .def_readonly("num_cached_tokens", &RequestOutput::num_cached_tokens)
      .def_readonly("cache", &RequestOutput::cache)
      .def_readonly("num_computed_prompt_tokens", &RequestOutput::num_computed_prompt_tokens)
      .def_readonly("num_generated_tokens", &RequestOutput::num_generated_tokens)
      .def_readonly("seed", &RequestOutput::seed)
      .def_readonly("timings", &RequestOutput::timings);

  py::class_<OutputQueue, std::shared_ptr<OutputQueue>>(module, "OutputQueue")
      .def(py::init(&make_queue))
      .def_property_readonly("fd", &OutputQueue::fd)
      .def("drain",
           [](OutputQueue& self) {
             check_process(self);
             return self.drain();
           })
      // A copy of a loop that goes on in a forked child calls them, too.
      .def("rest", [](OutputQueue& self) { if (self.is_of_this_process()) self.rest(); })
      .def("resume", [](OutputQueue& self) { if (self.is_of_this_process()) self.resume(); })
      .def("wait", &wait_for_outputs);
}

}  // namespace snapllm::bindings
