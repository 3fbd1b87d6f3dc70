"""What streamed answers are made of: the data of their events.

Reference: OpenAI API, "Chat streaming", "Completions", "Streaming responses", "Images streaming";
Anthropic API, "Streaming Messages". What streams may end with, an error, is the API's own.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

from snapllm.diffusion.pictures import ImageFormat
from snapllm.protocol.anthropic_answer_types import (
    AppliedEdits,
    MessageAnswer,
    MessageBlock,
    MessageUsage,
)
from snapllm.protocol.context_answers import IngestedContext, QueryAnswer
from snapllm.protocol.diffusion import DiffusionAnswer
from snapllm.protocol.native import GenerateAnswer
from snapllm.protocol.openai_answer_types import CompletionChoice, CompletionUsage
from snapllm.protocol.openai_logprobs import ChatLogprobs, ChosenToken
from snapllm.protocol.responses_answer_types import ResponseAnswer, ResponseItem


class FunctionPiece(TypedDict):
    """A piece of a function's arguments; the first has its name."""

    name: NotRequired[str]
    arguments: str


class CustomToolPiece(TypedDict):
    """A piece of a custom tool's text; the first has its name."""

    name: NotRequired[str]
    input: str


class ToolCallPiece(TypedDict):
    """A piece of a tool call; the first has its id and type."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function", "custom"]]
    function: NotRequired[FunctionPiece]
    custom: NotRequired[CustomToolPiece]


class ChatDelta(TypedDict):
    """What is new of a message."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    reasoning_content: NotRequired[str]
    """An extension."""
    tool_calls: NotRequired[list[ToolCallPiece]]
    function_call: NotRequired[FunctionPiece]
    """In their place where the request has `functions`."""


class ChatChunkChoice(TypedDict):
    """What is new of one of the answers."""

    index: int
    delta: ChatDelta
    finish_reason: str | None
    logprobs: NotRequired[ChatLogprobs]


class PieceUsage(TypedDict, total=False):
    """What an event says of the usage: None where a later one has it, or how much there is so far,
    if it is asked for."""

    usage: CompletionUsage | None


class ChatChunk(TypedDict):
    """An event of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: None
    choices: list[ChatChunkChoice]
    usage: NotRequired[CompletionUsage | None]
    """Of the last one, if it is asked for; None, or what it is so far: of those before it."""


class CompletionPiece(TypedDict):
    """An event of POST /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: None
    choices: list[CompletionChoice]
    usage: NotRequired[CompletionUsage | None]
    """As of a `ChatChunk`."""


class ResponseEvent(TypedDict):
    """An event of POST /v1/responses; which fields it has depends on its type."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.output_item.done",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
    ]
    sequence_number: int
    response: NotRequired[ResponseAnswer]
    output_index: NotRequired[int]
    item: NotRequired[ResponseItem]
    item_id: NotRequired[str]
    content_index: NotRequired[int]
    summary_index: NotRequired[int]
    part: NotRequired[dict[str, Any]]
    delta: NotRequired[str]
    text: NotRequired[str]
    logprobs: NotRequired[list[ChosenToken]]
    name: NotRequired[str]
    arguments: NotRequired[str]
    input: NotRequired[str]
    code: NotRequired[str]
    message: NotRequired[str]
    param: NotRequired[str | None]


class MessageDelta(TypedDict):
    """What is new of a block, or how a message ends."""

    type: NotRequired[
        Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]
    ]
    text: NotRequired[str]
    thinking: NotRequired[str]
    signature: NotRequired[str]
    partial_json: NotRequired[str]
    stop_reason: NotRequired[str]
    stop_sequence: NotRequired[str | None]


class MessageEvent(TypedDict):
    """An event of POST /v1/messages; which fields it has depends on its type."""

    type: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    ]
    message: NotRequired[MessageAnswer]
    index: NotRequired[int]
    content_block: NotRequired[MessageBlock]
    delta: NotRequired[MessageDelta]
    usage: NotRequired[MessageUsage]
    context_management: NotRequired[AppliedEdits]


class ImageTokens(TypedDict):
    """Of the tokens of a prompt."""

    image_tokens: int
    text_tokens: int


class ImageUsage(TypedDict):
    """The token counts of an image, which has none here."""

    input_tokens: int
    input_tokens_details: ImageTokens
    output_tokens: int
    total_tokens: int


class _ImageEvent(TypedDict):
    b64_json: str
    created_at: int
    size: str
    quality: Literal["auto"]
    output_format: str
    background: Literal["opaque"]


class PartialImage(_ImageEvent):
    """A preview, as an event of POST /v1/images/generations or edits."""

    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    partial_image_index: int


class CompletedImage(_ImageEvent):
    """An image, as an event of POST /v1/images/generations or edits."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    usage: ImageUsage


class TextPiece(TypedDict):
    """A piece of an answer in words, or of the reasoning before it."""

    token: str
    reasoning_token: NotRequired[str]
    done: Literal[False]


class LastTextPiece(GenerateAnswer):
    """The last event of an answer to a prompt, which has all of it."""

    token: str
    done: Literal[True]


class LastQueryPiece(QueryAnswer):
    """The last event of an answer about a context, which has all of it."""

    token: str
    done: Literal[True]


class IngestProgress(TypedDict):
    """How much of a document is computed."""

    type: Literal["progress"]
    computed_tokens: int
    token_count: int
    done: Literal[False]


class IngestResult(IngestedContext):
    """The last event of an ingest."""

    type: Literal["result"]
    done: Literal[True]


class QueuedPiece(TypedDict):
    """How many image jobs are before this one."""

    type: Literal["queued"]
    job_id: str
    position: int
    done: Literal[False]


class StepPiece(TypedDict):
    """How many steps of an image are done."""

    type: Literal["progress"]
    job_id: str
    step: int
    of: int
    seconds_per_step: float
    image_number: int
    """Which image of the batch it is, from 1 on; each one's steps begin at 0."""
    batch_count: int
    done: Literal[False]


class PreviewPiece(TypedDict):
    """A rough picture of an image that is being made, as a file in base64."""

    type: Literal["preview"]
    job_id: str
    step: int
    image: str
    format: ImageFormat
    image_number: int
    """Which image of the batch it is, from 1 on."""
    batch_count: int
    done: Literal[False]


class ResultPiece(DiffusionAnswer):
    """The last event of an image request."""

    type: Literal["result"]
    done: Literal[True]
