"""What Anthropic's endpoints answer with, where it is not streamed.

Reference: Anthropic API, "Create a Message", "Count tokens in a Message", "List Models", "Errors".
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict


class CacheCreation(TypedDict):
    """Tokens that were cached, by how long that is asked to last."""

    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class ThinkingTokens(TypedDict):
    """Of the tokens of an answer."""

    thinking_tokens: int


class MessageUsage(TypedDict):
    """The token counts of a message; those of the prompt are disjoint."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    cache_creation: CacheCreation
    output_tokens: int
    output_tokens_details: ThinkingTokens
    service_tier: Literal["standard"]


class MessageBlock(TypedDict):
    """A block of an answer's content; which fields it has depends on its type."""

    type: Literal["text", "thinking", "tool_use"]
    text: NotRequired[str]
    thinking: NotRequired[str]
    signature: NotRequired[str]
    id: NotRequired[str]
    name: NotRequired[str]
    input: NotRequired[dict[str, Any]]


class AppliedEdits(TypedDict):
    """What was cut from the conversation."""

    applied_edits: list[dict[str, Any]]


class MessageAnswer(TypedDict):
    """The body of POST /v1/messages."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[MessageBlock]
    stop_reason: str | None
    """None: it has just begun, in a stream."""
    stop_sequence: str | None
    usage: MessageUsage
    context_management: NotRequired[AppliedEdits]


class OriginalTokens(TypedDict):
    """Tokens of a prompt before anything is cut from it."""

    original_input_tokens: int


class TokenCountAnswer(TypedDict):
    """The body of POST /v1/messages/count_tokens."""

    input_tokens: int
    context_management: NotRequired[OriginalTokens]


class AnthropicModel(TypedDict):
    """A model, as Anthropic's clients are told of it."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int | None


class AnthropicModelList(TypedDict):
    """The body of GET /v1/models for Anthropic's clients."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ErrorDetails(TypedDict):
    """A code of Anthropic's own, on which its clients act."""

    error_code: str


class AnthropicErrorObject(TypedDict):
    """What went wrong, with the API's own code and the field at fault."""

    type: str
    message: str
    code: str
    param: str | None
    details: NotRequired[ErrorDetails]


class AnthropicError(TypedDict):
    """The body of an error of Anthropic's API."""

    type: Literal["error"]
    error: AnthropicErrorObject
    request_id: str
