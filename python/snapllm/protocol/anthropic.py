"""Anthropic's Messages API: requests in.

Reference: Anthropic API, "Create a Message", "Count tokens". The answers are written by
`anthropic_answers`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from snapllm._schemas import schema_text
from snapllm.conversation import (
    ContentPart,
    FunctionCall,
    MediaPart,
    Message,
    MessageToolCall,
)
from snapllm.errors import InvalidRequestError
from snapllm.params import UNLIMITED, ChatRequest, SamplingOptions
from snapllm.protocol.anthropic_refusals import (
    refuse_forms_of_no_answer,
    refuse_what_is_not_here,
)
from snapllm.protocol.anthropic_tools import offered
from snapllm.protocol.anthropic_types import (
    Block,
    CacheControl,
    CountTokensRequest,
    InputMessage,
    MessagesRequest,
    Source,
)
from snapllm.protocol.decoding import decode_body

_messages_decoder = msgspec.json.Decoder(MessagesRequest)
_count_decoder = msgspec.json.Decoder(CountTokensRequest)

TOOL_ID_PREFIX = "toolu_"
# Differs in every request of one client, and would end every common prefix.
_BILLING_LINE = re.compile(r"^x-anthropic-billing-header:[^\n]*\n?", re.MULTILINE)


class Breakpoint(msgspec.Struct, frozen=True):
    """The last `cache_control` of a request."""

    messages: list[Message]
    """The conversation up to it."""
    ttl: str


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
    return _parse(decode_body(body, _count_decoder), strip_billing)


def _parse(wire: MessagesRequest, strip_billing: bool) -> Parsed:
    refuse_what_is_not_here(wire)
    if wire.messages[-1].role == "assistant":
        raise InvalidRequestError(
            "messages: the last message must be the user's; answers cannot be prefilled",
            param="messages",
        )
    messages: list[Message] = []
    marks: list[tuple[int, str]] = []  # length of the conversation at a cache_control, ttl
    system = _system_text(wire.system, strip_billing)
    if system:
        messages.append(Message("system", system))
    for tool in wire.tools or ():
        _mark(marks, messages, tool.cache_control)
    if isinstance(wire.system, list):
        for block in wire.system:
            _mark(marks, messages, block.cache_control)
    for i, message in enumerate(wire.messages):
        _add_message(messages, message, f"messages[{i}]")
        if isinstance(message.content, list):
            for block in message.content:
                _mark(marks, messages, block.cache_control)
    _mark(marks, messages, wire.cache_control)
    tools, mode = offered(wire)
    thinking = wire.thinking is not None and wire.thinking.type != "disabled"
    request = ChatRequest(
        model=wire.model,
        messages=messages,
        tools=tools,
        tool_choice=mode,
        parallel_tool_calls=not (
            wire.tool_choice is not None and wire.tool_choice.disable_parallel_tool_use
        ),
        thinking=thinking,
        thinking_budget_tokens=_budget(wire) if thinking else UNLIMITED,
        json_schema=_json_schema(wire),
        sampling=_sampling(wire),
        max_tokens=wire.max_tokens,
        stop=tuple(wire.stop_sequences or ()),
    )
    mark = Breakpoint(messages[: marks[-1][0]], marks[-1][1]) if marks else None
    omits_thinking = wire.thinking is not None and wire.thinking.display == "omitted"
    may_edit = wire.context_management is not None
    return Parsed(request, bool(wire.stream), mark, omits_thinking, may_edit)


def _mark(
    marks: list[tuple[int, str]], messages: Sequence[Message], control: CacheControl | None
) -> None:
    if control is not None:
        marks.append((len(messages), control.ttl))


def _budget(wire: MessagesRequest) -> int:
    budget = wire.thinking.budget_tokens if wire.thinking is not None else None
    if budget is None:
        return UNLIMITED
    if budget >= wire.max_tokens:
        raise InvalidRequestError(
            "thinking.budget_tokens must be less than max_tokens", param="thinking.budget_tokens"
        )
    return budget


def _system_text(system: str | list[Block] | None, strip_billing: bool) -> str:
    if system is None:
        return ""
    texts = [system] if isinstance(system, str) else _texts(system, "system")
    if strip_billing:
        texts = [_BILLING_LINE.sub("", text) for text in texts]
    return "\n\n".join(text for text in texts if text)


def _texts(blocks: Sequence[Block], where: str) -> list[str]:
    return [_block_text(block, f"{where}[{i}]") for i, block in enumerate(blocks)]


def _block_text(block: Block, where: str) -> str:
    """The text of a text, document or search result block, or of a reference to a tool."""
    if block.type == "text":
        if block.text is None:
            raise InvalidRequestError(f"{where}.text is required", param=f"{where}.text")
        return block.text
    if block.type == "document":
        document = _document_text(block.source, f"{where}.source")
        return "\n".join(text for text in (block.title, block.context, document) if text)
    if block.type == "tool_reference" and block.tool_name:
        return f"{block.tool_name} can be called"
    if block.type == "search_result":
        found = block.source if isinstance(block.source, str) else None
        texts = _content_text(block.content or "", f"{where}.content")
        return "\n".join(text for text in (block.title, found, texts) if text)
    raise InvalidRequestError(
        f"{where}: content of type {block.type!r} is not supported here", param=f"{where}.type"
    )


def _document_text(source: Source | str | None, where: str) -> str:
    if isinstance(source, Source):
        if source.type == "text" and source.data is not None:
            return source.data
        if source.type == "content" and source.content is not None:
            return _content_text(source.content, f"{where}.content")
    raise InvalidRequestError(f"{where}: only documents of text are supported", param=where)


def _content_text(content: str | list[Block], where: str) -> str:
    return content if isinstance(content, str) else "\n".join(_texts(content, where))


def _add_message(messages: list[Message], message: InputMessage, where: str) -> None:
    content = message.content
    blocks = [Block("text", text=content)] if isinstance(content, str) else content
    where = f"{where}.content"
    if message.role == "assistant":
        _add_assistant(messages, blocks, where)
    elif message.role == "system":
        # Templates take system turns at the beginning only.
        text = "\n".join(_texts(blocks, where))
        _add_user_part(messages, ContentPart("text", f"<system>\n{text}\n</system>"))
    else:
        for i, block in enumerate(blocks):
            if block.type == "tool_result":
                messages.append(_tool_result(block, f"{where}[{i}]"))
            elif block.type == "image":
                _add_user_part(messages, _image_part(block, f"{where}[{i}]"))
            else:
                text = _block_text(block, f"{where}[{i}]")
                _add_user_part(messages, ContentPart("text", text))


def _add_user_part(messages: list[Message], part: ContentPart) -> None:
    """Adds to the user's turn; turns of the user that follow each other are one."""
    if messages and messages[-1].role == "user" and isinstance(messages[-1].content, list):
        messages[-1].content.append(part)
    else:
        messages.append(Message("user", [part]))


def _image_part(block: Block, where: str) -> ContentPart:
    """An image in the neutral form: a data URL, or the URL it was given by."""
    name = f"{where}.source"
    source = block.source if isinstance(block.source, Source) else Source("")
    if source.type == "base64" and source.data and source.media_type:
        url = f"data:{source.media_type};base64,{source.data}"
    elif source.type == "url" and source.url:
        url = source.url
    else:
        raise InvalidRequestError(f"{name} is not an image", param=name)
    return MediaPart("image_url", image_url=url, name=name)


def _tool_result(block: Block, where: str) -> Message:
    if not block.tool_use_id:
        raise InvalidRequestError(f"{where}.tool_use_id is required", param=f"{where}.tool_use_id")
    blocks = block.content or ""
    if isinstance(blocks, str):
        blocks = [Block("text", text=blocks)]
    parts = [
        _image_part(each, f"{where}.content[{i}]")
        if each.type == "image"
        else ContentPart("text", _block_text(each, f"{where}.content[{i}]"))
        for i, each in enumerate(blocks)
    ]
    content: str | list[ContentPart] = parts
    if all(part.type == "text" for part in parts):
        content = "\n".join(part.text or "" for part in parts)
    if block.is_error:
        failed = ContentPart("text", "Error:")
        content = f"Error: {content}" if isinstance(content, str) else [failed, *content]
    return Message("tool", content, tool_call_id=block.tool_use_id.removeprefix(TOOL_ID_PREFIX))


def _add_assistant(messages: list[Message], blocks: Sequence[Block], where: str) -> None:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[MessageToolCall] = []
    for i, block in enumerate(blocks):
        if block.type == "thinking":
            thoughts.append(block.thinking or "")
        elif block.type == "redacted_thinking":
            continue
        elif block.type == "tool_use":
            if not block.name or not block.id:
                raise InvalidRequestError(
                    f"{where}[{i}]: a tool_use needs an id and a name", param=f"{where}[{i}]"
                )
            call = FunctionCall(block.name, block.input or {})
            calls.append(MessageToolCall(call, block.id.removeprefix(TOOL_ID_PREFIX)))
        else:
            texts.append(_block_text(block, f"{where}[{i}]"))
    messages.append(
        Message(
            "assistant",
            "\n".join(texts),
            tool_calls=calls or None,
            reasoning_content="\n".join(thoughts) or None,
        )
    )


def _json_schema(wire: MessagesRequest) -> str:
    form, field = wire.output_format, "output_format"
    if form is None and wire.output_config is not None:
        form, field = wire.output_config.format, "output_config.format"
    if form is None:
        return ""
    if form.type != "json_schema" or form.schema is None:
        raise InvalidRequestError(f"{field} must be a json_schema", param=field)
    return schema_text(form.schema, f"{field}.schema")


def _sampling(wire: MessagesRequest) -> SamplingOptions:
    chosen: dict[str, Any] = {
        name: value
        for name in ("temperature", "top_p", "top_k")
        if (value := getattr(wire, name)) is not None
    }
    return SamplingOptions(**chosen)
