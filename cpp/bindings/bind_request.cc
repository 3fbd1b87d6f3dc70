#include <pybind11/stl.h>

#include "bindings.h"
#include "snapllm/chat_prompt.h"
#include "snapllm/request.h"

namespace snapllm::bindings {
namespace {

std::string tool_choice_name(const ChatFormatRequest& request) {
  switch (request.tool_choice) {
    case ToolChoice::kRequired: return "required";
    case ToolChoice::kNone: return "none";
    case ToolChoice::kAuto: break;
  }
  return "auto";
}

void set_tool_choice(ChatFormatRequest& request, const std::string& name) {
  if (name == "auto") request.tool_choice = ToolChoice::kAuto;
  else if (name == "required") request.tool_choice = ToolChoice::kRequired;
  else if (name == "none") request.tool_choice = ToolChoice::kNone;
  else throw_status({StatusCode::kInvalidRequest, "tool_choice must be auto, required or none"});
}

std::string media_kind_name(const MediaInput& input) {
  return input.kind == MediaKind::kAudio ? "audio" : "image";
}

void set_media_kind(MediaInput& input, const std::string& name) {
  if (name == "image") input.kind = MediaKind::kImage;
  else if (name == "audio") input.kind = MediaKind::kAudio;
  else throw_status({StatusCode::kInvalidRequest, "kind must be image or audio"});
}

using MediaInputs = std::vector<std::shared_ptr<MediaInput>>;

MediaInputs media_of(const ChatFormatRequest& request) {
  MediaInputs inputs;
  for (const auto& input : request.media) {
    inputs.push_back(std::const_pointer_cast<MediaInput>(input));
  }
  return inputs;
}

void set_media(ChatFormatRequest& request, const MediaInputs& inputs) {
  request.media.assign(inputs.begin(), inputs.end());
}

}  // namespace

void bind_request(py::module_& module) {
  py::class_<SamplingParams>(module, "SamplingParams")
      .def(keyword_constructor<SamplingParams>())
      .def_readwrite("temperature", &SamplingParams::temperature)
      .def_readwrite("top_p", &SamplingParams::top_p)
      .def_readwrite("top_k", &SamplingParams::top_k)
      .def_readwrite("min_p", &SamplingParams::min_p)
      .def_readwrite("typical_p", &SamplingParams::typical_p)
      .def_readwrite("repeat_penalty", &SamplingParams::repeat_penalty)
      .def_readwrite("frequency_penalty", &SamplingParams::frequency_penalty)
      .def_readwrite("presence_penalty", &SamplingParams::presence_penalty)
      .def_readwrite("penalty_last_n", &SamplingParams::penalty_last_n)
      .def_readwrite("seed", &SamplingParams::seed)
      .def_readwrite("ignore_eos", &SamplingParams::ignore_eos)
      .def_readwrite("min_tokens", &SamplingParams::min_tokens)
      .def_readwrite("num_logprobs", &SamplingParams::num_logprobs)
      .def_readwrite("logit_bias", &SamplingParams::logit_bias)
      .def_readwrite("grammar", &SamplingParams::grammar);

  py::class_<MediaInput, std::shared_ptr<MediaInput>>(module, "MediaInput")
      .def(keyword_constructor<MediaInput>())
      .def_property("kind", &media_kind_name, &set_media_kind)
      .def_readwrite("width", &MediaInput::width)
      .def_readwrite("height", &MediaInput::height)
      .def_property(
          "data", [](const MediaInput& input) { return py::bytes(input.data); },
          [](MediaInput& input, const py::bytes& data) { input.data = std::string(data); })
      .def_readwrite("id", &MediaInput::id);

  py::class_<ChatFormatRequest>(module, "ChatFormatRequest")
      .def(keyword_constructor<ChatFormatRequest>())
      .def_readwrite("messages_json", &ChatFormatRequest::messages_json)
      .def_readwrite("tools_json", &ChatFormatRequest::tools_json)
      .def_property("tool_choice", &tool_choice_name, &set_tool_choice)
      .def_readwrite("parallel_tool_calls", &ChatFormatRequest::parallel_tool_calls)
      .def_readwrite("enable_thinking", &ChatFormatRequest::enable_thinking)
      .def_readwrite("continue_final_message", &ChatFormatRequest::continue_final_message)
      .def_readwrite("json_schema", &ChatFormatRequest::json_schema)
      .def_readwrite("grammar", &ChatFormatRequest::grammar)
      .def_readwrite("thinking_budget_tokens", &ChatFormatRequest::thinking_budget_tokens)
      .def_property("media", &media_of, &set_media)
      .def_readwrite("media_marker", &ChatFormatRequest::media_marker)
      .def_readwrite("template_kwargs", &ChatFormatRequest::template_kwargs)
      .def_readwrite("cache_namespace", &ChatFormatRequest::cache_namespace);

  py::class_<GenerateRequest>(module, "GenerateRequest")
      .def(keyword_constructor<GenerateRequest>())
      .def_readwrite("model_id", &GenerateRequest::model_id)
      .def_readwrite("prompt", &GenerateRequest::prompt)
      .def_property(
          "chat",
          [](const GenerateRequest& r) { return std::const_pointer_cast<ChatPrompt>(r.chat); },
          [](GenerateRequest& r, std::shared_ptr<ChatPrompt> chat) { r.chat = std::move(chat); })
      .def_readwrite("sampling", &GenerateRequest::sampling)
      .def_readwrite("max_tokens", &GenerateRequest::max_tokens)
      .def_readwrite("stop", &GenerateRequest::stop)
      .def_readwrite("is_plain", &GenerateRequest::is_plain)
      .def_readwrite("reuse_prefix", &GenerateRequest::reuse_prefix)
      .def_readwrite("cache_namespace", &GenerateRequest::cache_namespace)
      .def_readwrite("num_prompt_logprobs", &GenerateRequest::num_prompt_logprobs)
      .def_readwrite("prefill_only", &GenerateRequest::prefill_only)
      .def_readwrite("report_progress", &GenerateRequest::report_progress)
      .def_readwrite("stream", &GenerateRequest::stream);
}

}  // namespace snapllm::bindings
