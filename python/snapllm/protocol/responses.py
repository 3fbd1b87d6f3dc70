"""OpenAI's Responses API: requests in.

Reference: OpenAI API, "Create a model response". The answers are written by
`responses_answers`; what of earlier ones a request refers to is found by `responses_items`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from snapllm._schemas import schema_text
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.openai import thinking_options
from snapllm.protocol.openai_sampling import sampling_options
from snapllm.protocol.responses_input import messages_of
from snapllm.protocol.responses_items import (
    Conversation,
    KeptResponses,
    NothingKept,
    placed_items,
    resolve,
)
from snapllm.protocol.responses_tools import ClientTool, offer, read_tools, with_additional
from snapllm.protocol.responses_types import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    InputTokensRequest,
    ResponsesRequest,
    TextOptions,
)

if TYPE_CHECKING:
    from snapllm.protocol.responses_answer_types import InputTokensAnswer

_SCHEMA_FIELD = "text.format.schema"

_decoder = msgspec.json.Decoder(ResponsesRequest)
_count_decoder = msgspec.json.Decoder(InputTokensRequest)


class Parsed(NamedTuple):
    """A request, as it came and as the engine takes it."""

    request: ChatRequest
    wire: ResponsesRequest
    tools: Sequence[ClientTool]
    conversation: Conversation


def parse(body: bytes, kept: KeptResponses | None = None, *, default_max_tokens: int = 0) -> Parsed:
    """Reads the body of POST /v1/responses.

    Args:
        body: The body.
        kept: What of earlier answers it may refer to.
        default_max_tokens: How long an answer gets at most where the request does not say, if that
            is more than `DEFAULT_MAX_OUTPUT_TOKENS`.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
        PreviousResponseNotFoundError: The response that it goes on from is not kept.
        NotFoundError: An item that it refers to is not kept.
    """
    wire = decode_body(body, _decoder)
    for name in ("background", "prompt", "moderation"):
        if getattr(wire, name):
            raise InvalidRequestError(f"{name} is not supported", param=name)
    prompt, tools, conversation = _prompt(wire, kept)
    wants_logprobs = wire.includes("message.output_text.logprobs")
    num_logprobs = (wire.top_logprobs or 0) if wants_logprobs else None
    request = msgspec.structs.replace(
        prompt,
        sampling=sampling_options(wire, num_logprobs),
        max_tokens=wire.max_output_tokens or max(DEFAULT_MAX_OUTPUT_TOKENS, default_max_tokens),
    )
    return Parsed(request, wire, tools, conversation)


def parse_count(body: bytes, kept: KeptResponses | None = None) -> ChatRequest:
    """Reads the body of POST /v1/responses/input_tokens; see `parse`."""
    return _prompt(decode_body(body, _count_decoder), kept)[0]


def count_object(num_tokens: int) -> bytes:
    """The body of its answer."""
    body: InputTokensAnswer = {"object": "response.input_tokens", "input_tokens": num_tokens}
    return msgspec.json.encode(body)


def _prompt(
    wire: InputTokensRequest, kept: KeptResponses | None
) -> tuple[ChatRequest, Sequence[ClientTool], Conversation]:
    """What the model is to be shown, and how it may answer."""
    if wire.conversation:
        raise InvalidRequestError("conversation is not supported", param="conversation")
    conversation = resolve(wire, kept or NothingKept())
    tools = with_additional(
        read_tools(wire.tools or ()), placed_items(wire.instructions, conversation)
    )
    offered, mode = offer(tools, wire.tool_choice)
    thinking, template_kwargs = thinking_options(wire.reasoning.effort if wire.reasoning else None)
    request = ChatRequest(
        model=wire.model,
        messages=messages_of(wire.instructions, conversation),
        tools=offered,
        tool_choice=mode,
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        thinking=thinking,
        template_kwargs=template_kwargs,
        json_schema=_json_schema(wire.text),
        json_schema_field=_SCHEMA_FIELD,
    )
    return request, tools, conversation


def _json_schema(text: TextOptions | None) -> str:
    form = text.format if text else None
    if form is None or form.type == "text":
        return ""
    if form.type == "json_object":
        return schema_text(form.schema or {"type": "object"}, _SCHEMA_FIELD)
    return schema_text(form.schema or {}, _SCHEMA_FIELD)
