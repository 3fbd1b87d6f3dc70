"""Anthropic's Messages API: requests in.

Reference: Anthropic API, "Create a Message", "Count tokens". The answers are written by
`anthropic_answers`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from snapllm._schemas import schema_text
from snapllm.conversation import is_begun
from snapllm.errors import InvalidRequestError
from snapllm.params import UNLIMITED, ChatRequest, SamplingOptions
from snapllm.protocol.anthropic_conversation import (
    Breakpoint,
    Conversation,
    read_conversation,
)
from snapllm.protocol.anthropic_refusals import (
    form_beside_begun_answer,
    must_call,
    refuse_forms_of_begun_answer,
    refuse_forms_of_no_answer,
    refuse_what_is_not_here,
)
from snapllm.protocol.anthropic_tools import offered
from snapllm.protocol.anthropic_types import CountTokensRequest, MessagesRequest
from snapllm.protocol.decoding import decode_body

_messages_decoder = msgspec.json.Decoder(MessagesRequest)
_count_decoder = msgspec.json.Decoder(CountTokensRequest)


class Parsed(msgspec.Struct, frozen=True):
    """A request and how its answer is to be written."""

    request: ChatRequest
    stream: bool
    breakpoint: Breakpoint | None
    omits_thinking: bool
    """Whether thinking blocks are returned without their text."""
    may_edit: bool
    """Whether the client allows parts of the conversation to be cut, and asks which were."""


def parse_messages(body: bytes, *, strip_billing: bool = True) -> Parsed:
    """Reads the body of POST /v1/messages.

    Args:
        body: The body.
        strip_billing: Leave the client's billing line out of the system prompt.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    wire = decode_body(body, _messages_decoder)
    if wire.max_tokens == 0:
        refuse_forms_of_no_answer(wire)
    return _parse(wire, strip_billing)


def parse_count(body: bytes, *, strip_billing: bool = True) -> Parsed:
    """Reads the body of POST /v1/messages/count_tokens; raises as `parse_messages` does."""
    return _parse(decode_body(body, _count_decoder), strip_billing, is_answered=False)


def _parse(wire: MessagesRequest, strip_billing: bool, *, is_answered: bool = True) -> Parsed:
    refuse_what_is_not_here(wire, is_answered=is_answered)
    conversation = read_conversation(wire, strip_billing=strip_billing)
    tools, mode = offered(wire)
    thinking = wire.thinking is not None and wire.thinking.type != "disabled"
    schema, schema_field = _json_schema(wire)
    has_begun = conversation.messages[-1].role == "assistant" and _read_beginning(
        conversation, wire, is_answered=is_answered
    )
    request = ChatRequest(
        model=wire.model,
        messages=conversation.messages,
        tools=tools,
        tool_choice=mode,
        parallel_tool_calls=not (
            wire.tool_choice is not None and wire.tool_choice.disable_parallel_tool_use
        ),
        continue_final_message=has_begun,
        thinking=thinking,
        thinking_budget_tokens=_budget(wire) if thinking and is_answered else UNLIMITED,
        json_schema=schema,
        json_schema_field=schema_field,
        sampling=_sampling(wire),
        max_tokens=wire.max_tokens,
        stop=tuple(wire.stop_sequences or ()),
    )
    omits_thinking = wire.thinking is not None and wire.thinking.display == "omitted"
    may_edit = wire.context_management is not None
    return Parsed(request, bool(wire.stream), conversation.breakpoint(), omits_thinking, may_edit)


def _read_beginning(
    conversation: Conversation, wire: MessagesRequest, *, is_answered: bool
) -> bool:
    """Whether the assistant's message at the end has a text that the answer goes on from; leaves
    it out where it is empty. Where tokens are only counted it may be a whole turn, too. So it is
    before an answer that must be a call."""
    where = f"messages[{len(wire.messages) - 1}].content"
    if is_answered:
        refuse_forms_of_begun_answer(wire, where)
    elif form_beside_begun_answer(wire):
        return False
    if is_begun(conversation.messages):
        return not must_call(wire)
    last = conversation.messages[-1]
    if last.tool_calls or last.reasoning_content:
        if not is_answered:
            return False
        raise InvalidRequestError(
            f"{where}: the beginning of an answer must be a text; calls need their results",
            param=where,
        )
    conversation.messages.pop()
    return False


def _budget(wire: MessagesRequest) -> int:
    budget = wire.thinking.budget_tokens if wire.thinking is not None else None
    if budget is None:
        return UNLIMITED
    if budget >= wire.max_tokens:
        raise InvalidRequestError(
            "thinking.budget_tokens must be less than max_tokens", param="thinking.budget_tokens"
        )
    return budget


def _json_schema(wire: MessagesRequest) -> tuple[str, str]:
    """The schema of the answer, and where it stands."""
    form, field = wire.output_format, "output_format"
    if form is None and wire.output_config is not None:
        form, field = wire.output_config.format, "output_config.format"
    if form is None:
        return "", ""
    if form.type != "json_schema" or form.schema is None:
        raise InvalidRequestError(f"{field} must be a json_schema", param=field)
    return schema_text(form.schema, f"{field}.schema"), f"{field}.schema"


def _sampling(wire: MessagesRequest) -> SamplingOptions:
    chosen: dict[str, Any] = {
        name: value
        for name in ("temperature", "top_p", "top_k")
        if (value := getattr(wire, name)) is not None
    }
    return SamplingOptions(**chosen)
