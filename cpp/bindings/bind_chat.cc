#include <pybind11/stl.h>

#include "bindings.h"
#include "snapllm/chat_prompt.h"

namespace snapllm::bindings {
namespace {

const char* kind_name(const ChatDelta& delta) {
  switch (delta.kind) {
    case ChatDelta::Kind::kReasoning: return "reasoning";
    case ChatDelta::Kind::kToolCall: return "tool_call";
    case ChatDelta::Kind::kContent: break;
  }
  return "content";
}

}  // namespace

void bind_chat(py::module_& module) {
  py::class_<ChatDelta>(module, "ChatDelta")
      .def_property_readonly("kind", &kind_name)
      .def_readonly("text", &ChatDelta::text)
      .def_readonly("tool_index", &ChatDelta::tool_index)
      .def_readonly("tool_id", &ChatDelta::tool_id)
      .def_readonly("tool_name", &ChatDelta::tool_name);

  // With the GIL: a piece takes microseconds, and a parser belongs to one reader.
  py::class_<ChatStreamParser>(module, "ChatStreamParser")
      .def("push", &ChatStreamParser::push, py::arg("output"))
      .def_property_readonly("num_reasoning_tokens", &ChatStreamParser::num_reasoning_tokens);

  py::class_<MediaSpan>(module, "MediaSpan")
      .def_readonly("begin", &MediaSpan::begin)
      .def_readonly("num_tokens", &MediaSpan::num_tokens)
      .def_readonly("num_positions", &MediaSpan::num_positions);

  py::class_<ChatPrompt, std::shared_ptr<ChatPrompt>>(module, "ChatPrompt")
      .def_property_readonly("text", &ChatPrompt::text)
      .def_property_readonly("tokens", &ChatPrompt::tokens)
      .def_property_readonly("media", &ChatPrompt::media)
      .def_property_readonly("stop", &ChatPrompt::stop)
      .def_property_readonly("supports_thinking", &ChatPrompt::supports_thinking)
      .def("create_parser", &ChatPrompt::create_parser);
}

}  // namespace snapllm::bindings
