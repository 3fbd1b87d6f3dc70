#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "bindings.h"
#include "snapllm/engine.h"

namespace snapllm::bindings {
namespace {

// Ends the engine without the GIL: running requests are cancelled and weights
// freed, which takes a while.
struct EngineDeleter {
  void operator()(Engine* engine) const {
    without_gil([&] { delete engine; });
  }
};
using EngineHolder = std::unique_ptr<Engine, EngineDeleter>;

// A call of a Python function from any thread; what it raises is reported, and means false.
std::function<bool()> without_arguments(py::function function) {
  const auto held = std::shared_ptr<py::function>(
      new py::function(std::move(function)), [](py::function* last) {
        py::gil_scoped_acquire gil;
        delete last;
      });
  return [held] {
    py::gil_scoped_acquire gil;
    try {
      return (*held)().cast<bool>();
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("a call of an ExternalHolder");
    } catch (const py::cast_error&) {
    }
    return false;
  };
}

// Waits in slices, so that Ctrl-C is seen.
void drain(Engine& self, int64_t timeout_ms) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kSliceMs = 50;
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    const int64_t left_ms =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    const int64_t slice_ms = std::clamp<int64_t>(left_ms, 0, kSliceMs);
    if (without_gil([&] { return self.drain(slice_ms); }) || left_ms <= 0) return;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

}  // namespace

void bind_engine(py::module_& module) {
  py::class_<Engine, EngineHolder>(module, "Engine")
      .def(py::init([](EngineOptions options) {
             return EngineHolder(
                 unwrap(without_gil([&] { return Engine::create(std::move(options)); })).release());
           }),
           py::arg("options"))
      .def(
          "load",
          [](Engine& self, const std::string& model_id, const ModelOptions& options) {
            return unwrap(without_gil([&] { return self.load(model_id, options); }));
          },
          py::arg("model_id"), py::arg("options"))
      .def(
          "unload",
          [](Engine& self, const std::string& model_id) {
            return unwrap(without_gil([&] { return self.unload(model_id); }));
          },
          py::arg("model_id"))
      // With the GIL: it takes less than releasing it would.
      .def(
          "switch_model",
          [](Engine& self, const std::string& model_id) { unwrap(self.switch_model(model_id)); },
          py::arg("model_id"))
      .def(
          "set_pinned",
          [](Engine& self, const std::string& model_id, bool pinned) {
            unwrap(self.set_pinned(model_id, pinned));
          },
          py::arg("model_id"), py::arg("pinned"))
      .def(
          "ensure_resident",
          [](Engine& self, const std::string& model_id) {
            unwrap(without_gil([&] { return self.ensure_resident(model_id); }));
          },
          py::arg("model_id"))
      .def(
          "set_external_memory",
          [](Engine& self, const std::string& name, uint64_t bytes, const std::string& what) {
            unwrap(without_gil([&] { return self.set_external_memory(name, bytes, what); }));
          },
          py::arg("name"), py::arg("bytes"), py::arg("what") = "")
      .def(
          "set_external_holder",
          [](Engine& self, py::function give_back, py::function may_give_back) {
            self.set_external_holder({without_arguments(std::move(give_back)),
                                      without_arguments(std::move(may_give_back))});
          },
          py::arg("give_back"), py::arg("may_give_back"))
      .def("active_model", &Engine::active_model)
      .def(
          "model_info",
          [](const Engine& self, const std::string& id) { return unwrap(self.model_info(id)); },
          py::arg("model_id"))
      .def("models", &Engine::models)
      .def("stats", &Engine::stats, py::call_guard<py::gil_scoped_release>())
      .def("residency_events", &Engine::residency_events, py::arg("after"),
           py::call_guard<py::gil_scoped_release>())
      .def(
          "tokenize",
          [](const Engine& self, const std::string& model_id, const std::string& text,
             bool add_special, bool parse_special, bool may_wait) {
            return unwrap(without_gil([&] {
              return self.tokenize(model_id, text, add_special, parse_special, may_wait);
            }));
          },
          py::arg("model_id"), py::arg("text"), py::arg("add_special") = true,
          py::arg("parse_special") = true, py::arg("may_wait") = true)
      .def(
          "tokenize_infill",
          [](const Engine& self, const std::string& model_id, const std::string& prefix,
             const std::string& suffix, bool may_wait) {
            return unwrap(without_gil(
                [&] { return self.tokenize_infill(model_id, prefix, suffix, may_wait); }));
          },
          py::arg("model_id"), py::arg("prefix"), py::arg("suffix"), py::arg("may_wait") = true)
      .def(
          "detokenize",
          [](const Engine& self, const std::string& model_id, const std::vector<Token>& tokens,
             bool special, bool may_wait) {
            return py::bytes(unwrap(
                without_gil([&] { return self.detokenize(model_id, tokens, special, may_wait); })));
          },
          py::arg("model_id"), py::arg("tokens"), py::arg("special") = true,
          py::arg("may_wait") = true)
      .def(
          "format_chat",
          [](const Engine& self, const std::string& model_id, const ChatFormatRequest& request,
             bool may_wait) {
            return std::const_pointer_cast<ChatPrompt>(unwrap(
                without_gil([&] { return self.format_chat(model_id, request, may_wait); })));
          },
          py::arg("model_id"), py::arg("request"), py::arg("may_wait") = true)
      .def(
          "submit",
          [](Engine& self, const GenerateRequest& request, std::shared_ptr<OutputQueue> outputs) {
            return unwrap(
                without_gil([&] { return self.submit(request, std::move(outputs)); }));
          },
          py::arg("request"), py::arg("outputs"))
      .def(
          "try_submit",
          [](Engine& self, const GenerateRequest& request, std::shared_ptr<OutputQueue> outputs) {
            return unwrap(
                without_gil([&] { return self.try_submit(request, std::move(outputs)); }));
          },
          py::arg("request"), py::arg("outputs"))
      .def(
          "embed",
          [](Engine& self, const EmbedRequest& request) {
            const auto vectors = unwrap(without_gil([&] { return self.embed(request); }));
            py::list list;
            for (const Embedding& vector : vectors) {
              list.append(py::bytes(reinterpret_cast<const char*>(vector.data()),
                                    vector.size() * sizeof(float)));
            }
            return list;
          },
          py::arg("request"))
      .def(
          "prefix_info",
          [](Engine& self, const PrefixRef& prefix) {
            return unwrap(without_gil([&] { return self.prefix_info(prefix); }));
          },
          py::arg("prefix"))
      .def(
          "pin_prefix",
          [](Engine& self, const PrefixRef& prefix) {
            unwrap(without_gil([&] { return self.pin_prefix(prefix); }));
          },
          py::arg("prefix"))
      .def(
          "persist_prefix",
          [](Engine& self, const PrefixRef& prefix) {
            unwrap(without_gil([&] { return self.persist_prefix(prefix); }));
          },
          py::arg("prefix"))
      .def(
          "discard_prefix",
          [](Engine& self, const PrefixRef& prefix, const std::vector<PrefixRef>& others) {
            unwrap(without_gil([&] { return self.discard_prefix(prefix, others); }));
          },
          py::arg("prefix"), py::arg("others"))
      .def(
          "make_disk_room",
          [](Engine& self, uint64_t bytes) {
            unwrap(without_gil([&] { return self.make_disk_room(bytes); }));
          },
          py::arg("bytes"))
      .def(
          "prefix_usage",
          [](Engine& self, std::vector<std::pair<PrefixRef, std::string>> prefixes) {
            std::vector<PrefixRef> refs;
            std::vector<Tier> tiers;
            for (auto& [ref, tier] : prefixes) {
              refs.push_back(std::move(ref));
              tiers.push_back(tier_of(tier));
            }
            return unwrap(without_gil([&] { return self.prefix_usage(refs, tiers); }));
          },
          py::arg("prefixes"))
      .def(
          "move_prefix",
          [](Engine& self, const PrefixRef& prefix, const std::string& tier,
             const std::vector<PrefixRef>& others) {
            const Tier wanted = tier_of(tier);
            unwrap(without_gil([&] { return self.move_prefix(prefix, wanted, others); }));
          },
          py::arg("prefix"), py::arg("tier"), py::arg("others"))
      .def(
          "read_prefix",
          [](Engine& self, const PrefixRef& prefix) {
            const auto states = unwrap(without_gil([&] { return self.read_prefix(prefix); }));
            py::list list;
            for (const auto& state : states) {
              PyObject* bytes =
                  PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(state->size()));
              if (bytes == nullptr) throw py::error_already_set();
              list.append(py::reinterpret_steal<py::bytes>(bytes));
              // Nobody else has it yet.
              char* target = PyBytes_AS_STRING(bytes);
              without_gil([&] { std::memcpy(target, state->data(), state->size()); });
            }
            return list;
          },
          py::arg("prefix"))
      .def(
          "write_prefix",
          [](Engine& self, const PrefixRef& prefix, const std::vector<py::bytes>& pieces) {
            const std::vector<std::string_view> views(pieces.begin(), pieces.end());
            unwrap(without_gil([&] {
              std::vector<StateBytes> states;
              for (const std::string_view view : views) {
                StateBytes& state = states.emplace_back(view.size());
                std::memcpy(state.data(), view.data(), view.size());
              }
              return self.write_prefix(prefix, std::move(states));
            }));
          },
          py::arg("prefix"), py::arg("states"))
      .def("cancel", &Engine::cancel, py::arg("request_id"),
           py::call_guard<py::gil_scoped_release>())
      .def("drain", &drain, py::arg("timeout_ms"))
      .def("close", &Engine::close, py::call_guard<py::gil_scoped_release>())
      .def("abandon", &Engine::abandon);
}

}  // namespace snapllm::bindings
