"""The fields of OpenAI's Responses API that SnapLLM reads.

Reference: OpenAI API, "Create a model response". Fields not listed are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from snapllm.conversation import ContentPart, ImageDetail
from snapllm.params import MaxTokens, ModelName, Temperature, TopP
from snapllm.protocol.openai_types import ReasoningEffort, TopLogprobs


class Reasoning(msgspec.Struct):
    """Whether the model thinks first."""

    effort: ReasoningEffort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Given, the reasoning stands where clients look for its summary, all of it."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """What `summary` was called before."""


class TextFormat(msgspec.Struct):
    """The form the text must have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct):
    """Options of the text."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    """Repeated in the answer only."""


class ToolFormat(msgspec.Struct):
    """The form of a custom tool's input."""

    type: str = "text"


class ResponsesTool(msgspec.Struct):
    """A tool: a function, a custom tool, a namespace of both, or one that OpenAI runs."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    format: ToolFormat | None = None
    tools: list[dict[str, Any]] | None = None


class ResponsesAllowedTool(msgspec.Struct):
    """One of the tools that may be called."""

    type: str = "function"
    name: str | None = None
    namespace: str | None = None


class ResponsesToolChoice(msgspec.Struct):
    """A `tool_choice` of one tool, or of several."""

    type: str = "function"
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[ResponsesAllowedTool] | None = None


class ReasoningPart(msgspec.Struct):
    """A piece of what a model thought, or of its summary."""

    text: str


class InputItem(msgspec.Struct, omit_defaults=True):
    """An item of the conversation so far; the fields of other types stay unset."""

    type: str | None = None
    id: str | None = None
    status: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | dict[str, Any] | None = None
    """A text, but in a `tool_search_call`."""
    input: str | None = None
    output: str | list[dict[str, Any]] | None = None
    author: str | None = None
    recipient: str | None = None
    tools: list[dict[str, Any]] | None = None
    summary: list[dict[str, Any]] | None = None
    encrypted_content: str | None = None

    @property
    def kind(self) -> str:
        """Its type, which messages and references may leave out."""
        if self.type is not None:
            return self.type
        is_reference = self.id is not None and self.role is None and self.content is None
        return "item_reference" if is_reference else "message"


class InputPart(ContentPart):
    """A part of a content. Here an image's detail stands beside it."""

    detail: ImageDetail | None = None


ADDITIONAL_TOOLS = "additional_tools"
"""The type of items that offer more tools."""
MAX_ITEMS = 10_000
"""Of a conversation."""
InputItems: TypeAlias = Annotated[list[InputItem], Meta(max_length=MAX_ITEMS)]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]


class InputTokensRequest(msgspec.Struct, kw_only=True):
    """The body of POST /v1/responses/input_tokens: of a request, what makes up its prompt."""

    model: str = ""
    """Empty = the active model."""
    input: str | InputItems | None = None
    instructions: str | list[InputItem] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none", "required"] | ResponsesToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    previous_response_id: str | None = None
    conversation: Any = None


class ResponsesRequest(InputTokensRequest, kw_only=True):
    """The body of POST /v1/responses."""

    model: ModelName
    input: str | InputItems
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: TopLogprobs | None = None
    include: list[str] | None = None
    stream: bool | None = None
    store: bool | None = None
    prompt: Any = None
    background: bool | None = None
    moderation: Any = None
    metadata: Metadata | None = None
    # Repeated in the answer only.
    truncation: Literal["auto", "disabled"] | None = None
    max_tool_calls: int | None = None
    """Of tools that OpenAI runs."""
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    logit_bias: None = None

    def includes(self, what: str) -> bool:
        """Whether the client asked for a part of the answer that is left out by default."""
        return what in (self.include or ())


DEFAULT_MAX_OUTPUT_TOKENS = 4096
"""Tokens of an answer whose request has no `max_output_tokens`, or the server's default where that
is more: a model that repeats itself ends."""
