"""The fields of OpenAI's chat completions API that SnapLLM reads.

Reference: OpenAI API, "Create chat completion". Fields not listed are ignored; `min_p`, `top_k`,
`repeat_penalty`, `repetition_penalty`, `n_predict`, `min_tokens`, `ignore_eos`,
`include_stop_str_in_output`, `continue_final_message`, `continuous_usage_stats`,
`chat_template_kwargs` and what `answer_forms` reads beside `response_format` are extensions that
llama-server and vLLM have, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from snapllm._numbers import INT32_MAX
from snapllm.conversation import FunctionCall, FunctionDefinition, Message, Role
from snapllm.params import (
    MaxTokens,
    MinP,
    MinTokens,
    ModelName,
    Penalty,
    RepeatPenalty,
    Seed,
    StopList,
    StopSequence,
    Temperature,
    TopP,
)

Choice = Annotated[str, Meta(min_length=1, max_length=4096)]
Choices = Annotated[list[Choice], Meta(min_length=1, max_length=1000)]
"""Texts of which an answer must be one."""
NumChoices = Annotated[int, Meta(ge=1, le=128)]
"""Answers to one prompt. Those beyond the sequences that a model decodes together wait."""
TopKOrAll = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
"""Of the likeliest tokens; 0, and -1 as vLLM has it, = all."""

NumPredicted = Annotated[int, Meta(ge=-1, le=INT32_MAX)]
"""llama-server's name of `max_tokens`; 0 = none, -1 = as many as the context holds."""


class StreamOptions(msgspec.Struct):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """Whether each chunk says how many tokens there are so far, as vLLM has it."""


class JsonSchema(msgspec.Struct):
    """A named schema of `response_format`."""

    name: str = ""
    schema: dict[str, Any] | None = None
    """None or empty = any JSON."""
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """What form the answer must have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None
    """The schema without a name, of either type of JSON, as llama-server has it."""
    value: dict[str, Any] | None = None
    """The schema of a `json_object`, as Hugging Face's clients send it to a base URL."""


class StructuredOutputs(msgspec.Struct):
    """What form the answer must have, as vLLM has it."""

    json: dict[str, Any] | str | None = None
    choice: Choices | None = None
    json_object: bool | None = None
    regex: str | None = None
    grammar: str | None = None
    structural_tag: Any = None


class CustomFormat(msgspec.Struct):
    """The form of a custom tool's input."""

    type: str = "text"


class CustomDefinition(msgspec.Struct):
    """A tool that is called with any text."""

    name: str
    description: str | None = None
    format: CustomFormat | None = None


class ChatTool(msgspec.Struct):
    """A tool: a function, or a custom one."""

    type: Literal["function", "custom"] = "function"
    function: FunctionDefinition | None = None
    custom: CustomDefinition | None = None


class NamedTool(msgspec.Struct):
    """The name of a tool."""

    name: str


class ChatAllowedTool(msgspec.Struct):
    """One of the tools that may be called."""

    type: Literal["function", "custom"] = "function"
    function: NamedTool | None = None
    custom: NamedTool | None = None


class ChatAllowedTools(msgspec.Struct):
    """The only tools that may be called, and whether one must be."""

    tools: list[ChatAllowedTool]
    mode: Literal["auto", "required"] = "auto"


class ChatToolChoice(msgspec.Struct):
    """A `tool_choice` of one tool, or of several."""

    type: Literal["function", "custom", "allowed_tools"] = "function"
    function: NamedTool | None = None
    custom: NamedTool | None = None
    allowed_tools: ChatAllowedTools | None = None


class ChatMessage(Message, omit_defaults=True, kw_only=True):
    """A message, which may be a function's, or call one."""

    role: Role | Literal["function"]  # type: ignore[assignment]
    function_call: FunctionCall | None = None


LogitBias = Annotated[float, Meta(ge=-100, le=100)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatCompletionRequest(msgspec.Struct, kw_only=True):
    """The body of POST /v1/chat/completions."""

    model: ModelName
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    n_predict: NumPredicted | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopKOrAll | None = None
    min_p: MinP | None = None
    repeat_penalty: RepeatPenalty | None = None
    repetition_penalty: RepeatPenalty | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    ignore_eos: bool | None = None
    min_tokens: MinTokens | None = None
    stop: StopSequence | StopList | None = None
    include_stop_str_in_output: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: NumChoices | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    logit_bias: dict[str, LogitBias] | None = None
    tools: list[ChatTool] | None = None
    tool_choice: Literal["auto", "none", "required", "any"] | ChatToolChoice | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None
    response_format: ResponseFormat | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_choice: Choices | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    regex: str | None = None
    """SGLang's name of `guided_regex`."""
    ebnf: str | None = None
    """SGLang's name of `guided_grammar`."""
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    modalities: list[str] | None = None
    functions: list[FunctionDefinition] | None = None
    """What tools were before they were called that."""
    function_call: Literal["none", "auto"] | NamedTool | None = None
    audio: Any = None
    web_search_options: Any = None
    moderation: Any = None
