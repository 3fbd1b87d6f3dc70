"""What OpenAI's Responses API answers with, where it is not streamed.

Reference: OpenAI API, "Responses".
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict


class InputDetails(TypedDict):
    """Of the tokens of a prompt."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(TypedDict):
    """Of the tokens of an answer."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """The token counts of a response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseItem(TypedDict):
    """An item of what a response puts out; which fields it has depends on its type."""

    id: str
    type: Literal["message", "reasoning", "function_call", "custom_tool_call"]
    status: str
    role: NotRequired[Literal["assistant"]]
    content: NotRequired[list[dict[str, Any]]]
    summary: NotRequired[list[dict[str, Any]]]
    encrypted_content: NotRequired[str]
    call_id: NotRequired[str]
    name: NotRequired[str]
    namespace: NotRequired[str]
    arguments: NotRequired[str]
    input: NotRequired[str]


class ResponseFailure(TypedDict):
    """Why a response could not be finished."""

    code: str
    message: str


class IncompleteDetails(TypedDict):
    """Why a response is cut off."""

    reason: Literal["max_output_tokens"]


class ResponseAnswer(TypedDict):
    """The body of POST /v1/responses and of GET /v1/responses/{response_id}."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    """None: it is not completed."""
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: Literal[False]
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | list[dict[str, Any]] | None
    max_output_tokens: int | None
    """As the request has it."""
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[ResponseItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    """In effect, as `top_p`."""
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None
    user: str | None


class InputTokensAnswer(TypedDict):
    """The body of POST /v1/responses/input_tokens."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class InputItemList(TypedDict):
    """The body of GET /v1/responses/{response_id}/input_items."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedResponse(TypedDict):
    """The body of DELETE /v1/responses/{response_id}."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]
