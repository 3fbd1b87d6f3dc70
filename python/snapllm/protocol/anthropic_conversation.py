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
    Message,
    MessageToolCall,
)
from snapllm.errors import InvalidRequestError
from snapllm.protocol.anthropic_blocks import block_parts, blocks_of, said_text, texts
from snapllm.protocol.anthropic_types import (
    Block,
    CacheControl,
    InputMessage,
    MessagesRequest,
)
from snapllm.protocol.carried_reasoning import decode_reasoning

TOOL_ID_PREFIX = "toolu_"
# Differs in every request of one client, and would end every common prefix.
_BILLING_LINE = re.compile(r"^x-anthropic-billing-header:[^\n]*\n?", re.MULTILINE)


class Breakpoint(msgspec.Struct, frozen=True):
    """The last `cache_control` of a request."""

    messages: list[Message]
    """The conversation up to it."""
    ttl: str
    for_an_hour: list[Message] | None = None
    """The conversation up to the last one of an hour, where this is none."""


class _Mark(msgspec.Struct, frozen=True):
    """A place in a conversation: nothing of it is copied, as another mark may follow."""

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
        self._marks: dict[str, _Mark] = {}  # the last one of each TTL, in their order

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
            self._marks.pop(control.ttl, None)
            self._marks[control.ttl] = _Mark(len(self.messages), num_parts, end)

    def breakpoint(self) -> Breakpoint | None:
        """The last mark, with what comes before it."""
        if not self._marks:
            return None
        ttl = next(reversed(self._marks))
        hour = self._marks.get("1h") if ttl != "1h" else None
        return Breakpoint(
            self._up_to(self._marks[ttl]), ttl, self._up_to(hour) if hour is not None else None
        )

    def _up_to(self, mark: _Mark) -> list[Message]:
        messages = self.messages[: mark.num_messages]
        if messages and isinstance(messages[-1].content, list):
            content = messages[-1].content[: mark.num_parts]
            messages[-1] = msgspec.structs.replace(messages[-1], content=content)
        messages += mark.end
        if not messages or messages[-1].role == "system":
            # Not every template shows tools and a system prompt to nobody.
            messages.append(Message("user", ""))
        return messages


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
    shown = _shown_messages(wire.messages)
    if not shown:
        raise InvalidRequestError("messages: none of them says anything", param="messages")
    said: list[tuple[Block, str]] = []  # by the assistant, in the messages before
    for number, (message, where) in enumerate(shown):
        if message.content is None:
            raise InvalidRequestError(f"{where} is required", param=where)
        if message.role != "assistant":
            _add_message(conversation, message, where)
            continue
        said += [(each, f"{where}[{i}]") for i, each in enumerate(blocks_of(message.content))]
        if number + 1 == len(shown) or shown[number + 1][0].role != "assistant":
            _add_assistant(conversation, said)
            said = []
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
    said = [system] if isinstance(system, str) else texts(system, "system")
    if strip_billing:
        said = [_BILLING_LINE.sub("", text) for text in said]
    return "\n\n".join(text for text in said if text)


def _shown_messages(messages: Sequence[InputMessage]) -> list[tuple[InputMessage, str]]:
    """The messages, with where they stand, without those of the system that say nothing any more:
    they are cleared, or there for their other fields."""
    last_user = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)

    def is_shown(i: int, message: InputMessage) -> bool:
        is_cleared = message.clear_at == "next_user_message" and i < last_user
        is_empty = message.content is None and message.output_config is not None
        return message.role != "system" or not (is_cleared or is_empty)

    return [
        (message, f"messages[{i}].content")
        for i, message in enumerate(messages)
        if is_shown(i, message)
    ]


def _add_assistant(conversation: Conversation, said: Sequence[tuple[Block, str]]) -> None:
    """Adds a turn of the assistant: messages that follow each other are one."""
    until, control = _last_marked([block for block, _ in said])
    if control is not None:
        conversation.mark(control, _assistant(said[: len(until)]))
    conversation.messages.append(_assistant(said))


def _add_message(conversation: Conversation, message: InputMessage, where: str) -> None:
    blocks = blocks_of(message.content)
    if message.role == "system":
        # Templates take system turns at the beginning only.
        text = "\n".join(texts(blocks, where))
        conversation.add_part(ContentPart("text", f"<system>\n{text}\n</system>"))
        for block in blocks:
            conversation.mark(block.cache_control)
    else:
        if all(block.type == "text" and block.text == "" for block in blocks):
            raise InvalidRequestError(f"{where}: a user's message must not be empty", param=where)
        for i, block in enumerate(blocks):
            _add_user_block(conversation, block, f"{where}[{i}]")


def _add_user_block(conversation: Conversation, block: Block, where: str) -> None:
    control = block.cache_control
    if block.type == "tool_result":
        conversation.messages.append(_tool_result(block, where))
        # A result is cached whole: what is marked within it ends with it.
        control = control or _last_marked(blocks_of(block.content))[1]
    else:
        for part in block_parts(block, where):
            conversation.add_part(part)
    conversation.mark(control)


def _tool_result(block: Block, where: str) -> Message:
    if not block.tool_use_id:
        raise InvalidRequestError(f"{where}.tool_use_id is required", param=f"{where}.tool_use_id")
    parts = [
        part
        for i, each in enumerate(blocks_of(block.content))
        for part in block_parts(each, f"{where}.content[{i}]")
    ]
    content: str | list[ContentPart] = parts
    if all(part.type == "text" for part in parts):
        content = "\n".join(part.text or "" for part in parts)
    if block.is_error:
        failed = ContentPart("text", "Error:")
        content = f"Error: {content}" if isinstance(content, str) else [failed, *content]
    return Message("tool", content, tool_call_id=block.tool_use_id.removeprefix(TOOL_ID_PREFIX))


def _assistant(blocks: Sequence[tuple[Block, str]]) -> Message:
    said: list[str] = []
    thoughts: list[str] = []
    calls: list[MessageToolCall] = []
    for block, where in blocks:
        if block.type == "thinking":
            thoughts.append(block.thinking or decode_reasoning(block.signature or ""))
        elif block.type == "redacted_thinking":
            continue
        elif block.type == "tool_use":
            if not block.name or not block.id:
                raise InvalidRequestError(
                    f"{where}: a tool_use needs an id and a name", param=where
                )
            call = FunctionCall(block.name, block.input or {})
            calls.append(MessageToolCall(call, block.id.removeprefix(TOOL_ID_PREFIX)))
        else:
            said.append(said_text(block, where))
    return Message(
        "assistant",
        "\n".join(text for text in said if text),
        tool_calls=calls or None,
        reasoning_content="\n".join(thoughts) or None,
    )
