"""OpenAI's Responses API, stateless: requests in.

Reference: OpenAI API, "Create a model response". Nothing is kept: `previous_response_id`
and `conversation` are refused. The answers are written by `responses_answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from snapllm._checks import convert
from snapllm._requests import schema_text
from snapllm.conversation import (
    ContentPart,
    FunctionCall,
    MediaPart,
    Message,
    MessageToolCall,
    TextCall,
    is_media,
    part_text,
)
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.openai import thinks
from snapllm.protocol.openai_sampling import sampling_options
from snapllm.protocol.responses_tools import ClientTool, offer, read_tools, shown_name
from snapllm.protocol.responses_types import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    InputItem,
    ReasoningPart,
    ResponsesRequest,
    TextOptions,
)

_decoder = msgspec.json.Decoder(ResponsesRequest)
_CALLS = ("function_call", "custom_tool_call")


class Parsed(NamedTuple):
    """A request, as it came and as the engine takes it."""

    request: ChatRequest
    wire: ResponsesRequest
    tools: Sequence[ClientTool]


def parse(body: bytes) -> Parsed:
    """Reads the body of POST /v1/responses.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    wire = decode_body(body, _decoder)
    for name in ("previous_response_id", "conversation", "background"):
        if getattr(wire, name):
            raise InvalidRequestError(
                f"{name} is not supported: responses are not stored", param=name
            )
    tools = read_tools(wire.tools or ())
    offered, mode = offer(tools, wire.tool_choice)
    request = ChatRequest(
        model=wire.model,
        messages=_messages(wire),
        tools=offered,
        tool_choice=mode,
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        thinking=thinks(wire.reasoning.effort if wire.reasoning else None),
        json_schema=_json_schema(wire.text),
        sampling=sampling_options(wire, None),
        max_tokens=wire.max_output_tokens or DEFAULT_MAX_OUTPUT_TOKENS,
    )
    return Parsed(request, wire, tools)


def _messages(wire: ResponsesRequest) -> list[Message]:
    messages: list[Message] = []
    if isinstance(wire.instructions, str) and wire.instructions:
        messages.append(Message("system", wire.instructions))
    elif wire.instructions:
        _add_items(messages, wire.instructions, "instructions")
    if isinstance(wire.input, str):
        return [*messages, Message("user", wire.input)]
    if not wire.input:
        raise InvalidRequestError("input must not be empty", param="input")
    _add_items(messages, wire.input, "input")
    return messages


def _add_items(messages: list[Message], items: Sequence[InputItem], field: str) -> None:
    for i, item in enumerate(items):
        _add_item(messages, item, f"{field}[{i}]")


def _add_item(messages: list[Message], item: InputItem, where: str) -> None:
    if item.type == "reasoning":
        text = _reasoning_text(item, where)
        if text:
            turn = _answer_going_on(messages, item)
            earlier = turn.reasoning_content
            turn.reasoning_content = f"{earlier}\n{text}" if earlier else text
    elif item.type == "message":
        if item.role is None or item.content is None:
            raise InvalidRequestError(f"{where} needs a role and a content", param=where)
        content = _content(item.content, f"{where}.content")
        if item.role != "assistant":
            messages.append(Message(item.role, content))
            return
        turn = _answer_going_on(messages, item)
        turn.content = [*_parts(turn.content), *_parts(content)] if turn.content else content
    elif item.type in _CALLS:
        turn = _answer_going_on(messages, item)
        turn.tool_calls = [*(turn.tool_calls or ()), _call(item)]
    elif item.type in ("function_call_output", "custom_tool_call_output"):
        output = item.output if item.output is not None else ""
        messages.append(
            Message("tool", _content(output, f"{where}.output"), tool_call_id=item.call_id or "")
        )
    else:
        raise InvalidRequestError(
            f"{where}: items of type {item.type!r} are not supported", param=f"{where}.type"
        )


def _call(item: InputItem) -> MessageToolCall:
    name, call_id = shown_name(item.name or "", item.namespace), item.call_id or ""
    if item.type == "custom_tool_call":
        return MessageToolCall(None, call_id, "custom", TextCall(name, item.input or ""))
    return MessageToolCall(FunctionCall(name, item.arguments or ""), call_id)


def _answer_going_on(messages: list[Message], item: InputItem) -> Message:
    """The assistant's turn that the item is part of; a new one where it begins another answer.

    What stands in several items here is one turn elsewhere, and one to the model: reasoning,
    a text and calls. After its text only calls go on with it. Once it has calls, all goes on
    with it that comes before their outputs.
    """
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant":
        is_going_on = last.tool_calls or not last.content or item.type in _CALLS
        if is_going_on:
            return last
    messages.append(turn := Message("assistant", ""))
    return turn


def _reasoning_text(item: InputItem, where: str) -> str:
    """What the model thought, in full where the item has that; "" = it is kept elsewhere."""
    field = "content" if item.content else "summary"
    given = getattr(item, field)
    if isinstance(given, str):
        return given
    parts = convert(given or [], list[ReasoningPart], f"{where}.{field}")
    return "\n".join(part.text for part in parts)


def _parts(content: str | list[ContentPart]) -> list[ContentPart]:
    return [ContentPart("text", content)] if isinstance(content, str) else content


def _content(content: str | list[dict[str, Any]], where: str) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content
    return [_part(part, f"{where}[{i}]") for i, part in enumerate(content)]


def _part(form: dict[str, Any], where: str) -> ContentPart:
    """The part; what is wrong with it is named as the client wrote it."""
    if form.get("type") == "input_image":
        form = form | {"type": "image_url"}
    part = convert(form, ContentPart, where)
    if part.type == "image_url":
        name = f"{where}.image_url"
        if not part.image_url:
            raise InvalidRequestError(f"{name} is required", param=name)
        return MediaPart(part.type, image_url=part.image_url, name=name)
    return part if is_media(part) else ContentPart("text", part_text(part, where))


def _json_schema(text: TextOptions | None) -> str:
    form = text.format if text else None
    if form is None or form.type == "text":
        return ""
    if form.type == "json_object":
        return schema_text(form.schema or {"type": "object"})
    if form.schema is None:
        raise InvalidRequestError("text.format.schema is required", param="text.format.schema")
    return schema_text(form.schema)
