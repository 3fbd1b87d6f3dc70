"""The conversation in a request of Anthropic's Messages API, and what of it is marked.

Reference: Anthropic API, "Create a Message", "Prompt caching".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from snapllm.conversation import (
    ContentPart,
    FunctionCall,
    MediaPart,
    Message,
    MessageToolCall,
)
from snapllm.errors import InvalidRequestError
from snapllm.protocol.anthropic_types import (
    Block,
    CacheControl,
    InputMessage,
    MessagesRequest,
    Source,
)

TOOL_ID_PREFIX = "toolu_"
# Differs in every request of one client, and would end every common prefix.
_BILLING_LINE = re.compile(r"^x-anthropic-billing-header:[^\n]*\n?", re.MULTILINE)


class Breakpoint(msgspec.Struct, frozen=True):
    """The last `cache_control` of a request."""

    messages: list[Message]
    """The conversation up to it."""
    ttl: str


class _Mark(msgspec.Struct, frozen=True):
    """A place in a conversation: nothing of it is copied, as another mark may follow."""

    ttl: str
    num_messages: int
    """Messages before it."""
    num_parts: int
    """Parts of the last of them, which may go on: a user's turn."""
    end: tuple[Message, ...]
    """The part of the next message, or the system prompt, that it ends."""


class Conversation:
    """What is read of a conversation so far."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._mark: _Mark | None = None

    def add_part(self, part: ContentPart) -> None:
        """Adds to the user's turn; turns of the user that follow each other are one."""
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == "user" and isinstance(last.content, list):
            last.content.append(part)
        else:
            self.messages.append(Message("user", [part]))

    def mark(self, control: CacheControl | None, *end: Message) -> None:
        """Sets the breakpoint if there is a mark here, or in `end`, which comes next."""
        if control is not None:
            last = self.messages[-1].content if self.messages else None
            num_parts = len(last) if isinstance(last, list) else 0
            self._mark = _Mark(control.ttl, len(self.messages), num_parts, end)

    def breakpoint(self) -> Breakpoint | None:
        """The last mark, with what comes before it."""
        mark = self._mark
        if mark is None:
            return None
        messages = self.messages[: mark.num_messages]
        if messages and isinstance(messages[-1].content, list):
            content = messages[-1].content[: mark.num_parts]
            messages[-1] = msgspec.structs.replace(messages[-1], content=content)
        messages += mark.end
        if not messages or messages[-1].role == "system":
            # Not every template shows tools and a system prompt to nobody.
            messages.append(Message("user", ""))
        return Breakpoint(messages, mark.ttl)


def read_conversation(wire: MessagesRequest, *, strip_billing: bool) -> Conversation:
    """Reads the system prompt and the messages.

    Args:
        wire: The request.
        strip_billing: Leave the client's billing line out of the system prompt.

    Raises:
        InvalidRequestError: A message does not fit; `param` names the field at fault.
    """
    conversation = Conversation()
    system = _system_turn(wire.system, strip_billing)
    for tool in wire.tools or ():
        conversation.mark(tool.cache_control, *system)
    if isinstance(wire.system, list):
        until, control = _last_marked(wire.system)
        conversation.mark(control, *_system_turn(until, strip_billing))
    conversation.messages += system
    for i, message in enumerate(wire.messages):
        _add_message(conversation, message, f"messages[{i}].content")
    conversation.mark(wire.cache_control)
    return conversation


def _last_marked(blocks: list[Block]) -> tuple[list[Block], CacheControl | None]:
    """The blocks up to the last one with a mark, and that mark; no blocks without one."""
    for i, block in reversed(list(enumerate(blocks))):
        if block.cache_control is not None:
            return blocks[: i + 1], block.cache_control
    return [], None


def _system_turn(system: str | list[Block] | None, strip_billing: bool) -> list[Message]:
    text = _system_text(system, strip_billing)
    return [Message("system", text)] if text else []


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


def _add_message(conversation: Conversation, message: InputMessage, where: str) -> None:
    content = message.content
    blocks = [Block("text", text=content)] if isinstance(content, str) else content
    if message.role == "assistant":
        until, control = _last_marked(blocks)
        conversation.mark(control, _assistant(until, where))
        conversation.messages.append(_assistant(blocks, where))
    elif message.role == "system":
        # Templates take system turns at the beginning only.
        text = "\n".join(_texts(blocks, where))
        conversation.add_part(ContentPart("text", f"<system>\n{text}\n</system>"))
        for block in blocks:
            conversation.mark(block.cache_control)
    else:
        if not content:
            raise InvalidRequestError(f"{where}: a user's message must not be empty", param=where)
        for i, block in enumerate(blocks):
            _add_user_block(conversation, block, f"{where}[{i}]")
            conversation.mark(block.cache_control)


def _add_user_block(conversation: Conversation, block: Block, where: str) -> None:
    if block.type == "tool_result":
        conversation.messages.append(_tool_result(block, where))
    elif block.type == "image":
        conversation.add_part(_image_part(block, where))
    else:
        conversation.add_part(ContentPart("text", _block_text(block, where)))


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


def _assistant(blocks: Sequence[Block], where: str) -> Message:
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
    return Message(
        "assistant",
        "\n".join(texts),
        tool_calls=calls or None,
        reasoning_content="\n".join(thoughts) or None,
    )
