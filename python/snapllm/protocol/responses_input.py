"""The input of OpenAI's Responses API as the turns of a conversation.

Reference: OpenAI API, "Create a model response", `input` and `instructions`.
"""

from __future__ import annotations

import re
from typing import Any

from snapllm._checks import convert
from snapllm._files import InputFile, file_text
from snapllm._system_turn import join_system, split_system
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
from snapllm.protocol.carried_reasoning import decode_reasoning
from snapllm.protocol.responses_items import Conversation, placed_items
from snapllm.protocol.responses_tools import shown_name
from snapllm.protocol.responses_types import (
    ADDITIONAL_TOOLS,
    InputItem,
    InputPart,
    ReasoningPart,
)

_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
# What tools left behind that OpenAI runs within an answer; the answer says what they found.
_HOSTED = re.compile(
    r"(?:web_search|file_search|code_interpreter|image_generation|mcp)_call"
    r"|mcp_(?:list_tools|approval_request|approval_response)|tool_search_(?:call|output)"
)


def messages_of(
    instructions: str | list[InputItem] | None, conversation: Conversation
) -> list[Message]:
    """The turns that the model is shown. What instructions and the first items say for the system,
    or a developer, is one turn: many templates take no second.

    Raises:
        InvalidRequestError: An item does not fit; `param` names it. Or none is of a turn.
    """
    turns = _Turns()
    if isinstance(instructions, str) and instructions:
        turns.add(Message("system", instructions))
    for where, item in placed_items(instructions, conversation):
        _add_item(turns, item, where)
    messages = turns.messages()
    if not messages:
        raise InvalidRequestError("input: none of it is said to the model", param="input")
    first, rest = split_system(messages)
    if len(first) > 1:
        first = [Message("system", join_system(first))]
    return [*first, *rest]


class _Turns:
    """The turns so far; the last one may go on."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._thoughts: list[str] = []  # of the last one
        self._remarks: list[Message] = []  # that follow it and the outputs of its calls

    def add(self, message: Message) -> None:
        """Begins another turn."""
        self._end_thoughts()
        if message.role != "tool":
            self._end_remarks()
        self._messages.append(message)

    def remark(self, content: str | list[ContentPart]) -> None:
        """Adds a turn that tells the model something which it did not ask for. It never stands
        between calls and their outputs: templates expect these to follow each other."""
        message = Message("user", content)
        last = self._messages[-1] if self._messages else None
        if last is not None and (last.tool_calls or last.role == "tool"):
            self._remarks.append(message)
        else:
            self.add(message)

    def going_on(self, item: InputItem) -> Message:
        """The assistant's turn that the item is part of; a new one where it begins another answer.

        What stands in several items here is one turn elsewhere, and one to the model: reasoning,
        a text and calls. After its text only calls go on with it. Once it has calls, all goes on
        with it that comes before their outputs.
        """
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role == "assistant":
            is_going_on = last.tool_calls or not last.content or item.kind in _CALLS
            if is_going_on:
                return last
        self.add(turn := Message("assistant", ""))
        return turn

    def think(self, text: str) -> None:
        """Adds to what was thought in the last turn."""
        self._thoughts.append(text)

    def messages(self) -> list[Message]:
        """All of them."""
        self._end_thoughts()
        self._end_remarks()
        return self._messages

    def _end_thoughts(self) -> None:
        if self._thoughts:
            self._messages[-1].reasoning_content = "\n".join(self._thoughts)
            self._thoughts = []

    def _end_remarks(self) -> None:
        self._messages += self._remarks
        self._remarks = []


def _add_item(turns: _Turns, item: InputItem, where: str) -> None:
    if item.kind == "reasoning":
        text = _reasoning_text(item, where)
        if text:
            turns.going_on(item)
            turns.think(text)
    elif item.kind == "message":
        if item.role is None or item.content is None:
            raise InvalidRequestError(f"{where} needs a role and a content", param=where)
        content = _content(item.content, f"{where}.content")
        if item.role != "assistant":
            turns.add(Message(item.role, content))
            return
        turn = turns.going_on(item)
        if turn.content:
            turn.content = _parts(turn.content)
            turn.content += _parts(content)
        else:
            turn.content = content
    elif item.kind in _CALLS:
        turn = turns.going_on(item)
        turn.tool_calls = turn.tool_calls or []
        turn.tool_calls.append(_call(item, where))
    elif item.kind in _OUTPUTS:
        _add_output(turns, item, where)
    elif item.kind == "agent_message":
        if said := _of_agent(item, f"{where}.content"):
            name = " to ".join(filter(None, (item.author, item.recipient)))
            turns.remark(_named(name, said) if name else said)
    elif item.kind != ADDITIONAL_TOOLS and not _HOSTED.fullmatch(item.kind):
        raise InvalidRequestError(
            f"{where}: items of type {item.kind!r} are not supported", param=f"{where}.type"
        )


def _add_output(turns: _Turns, item: InputItem, where: str) -> None:
    """Adds the output of a call, or what a client's tool says without one: Codex tells the model
    so what its user changed."""
    is_asked_for = item.call_id is not None or not item.name
    for field in ("call_id", "output") if is_asked_for else ("output",):
        if getattr(item, field) is None:
            raise InvalidRequestError(f"{where}.{field} is required", param=f"{where}.{field}")
    output = _content(item.output or "", f"{where}.output")
    if is_asked_for:
        turns.add(Message("tool", output, tool_call_id=item.call_id))
    else:
        turns.remark(_named(shown_name(item.name or "", item.namespace), output))


def _of_agent(item: InputItem, where: str) -> str | list[ContentPart]:
    """What another agent says, but for what only OpenAI's servers can read of it."""
    if item.content is None:
        raise InvalidRequestError(f"{where} is required", param=where)
    if isinstance(item.content, str):
        return item.content
    parts = enumerate(item.content)
    return [
        _part(part, f"{where}[{i}]") for i, part in parts if part.get("type") != "encrypted_content"
    ]


def _named(name: str, content: str | list[ContentPart]) -> list[ContentPart]:
    """A content under the name of whom it comes from."""
    return [ContentPart("text", f"{name}:"), *_parts(content)]


def _call(item: InputItem, where: str) -> MessageToolCall:
    name, call_id = shown_name(item.name or "", item.namespace), item.call_id or ""
    if item.kind == "custom_tool_call":
        return MessageToolCall(None, call_id, "custom", TextCall(name, item.input or ""))
    if isinstance(item.arguments, dict):
        param = f"{where}.arguments"
        raise InvalidRequestError(f"{param}: expected a text", param=param)
    return MessageToolCall(FunctionCall(name, item.arguments or ""), call_id)


def _reasoning_text(item: InputItem, where: str) -> str:
    """What the model thought, in full where the item has that; "" = it is kept elsewhere."""
    text = _thoughts(item.content, f"{where}.content")
    return (
        text
        or decode_reasoning(item.encrypted_content or "")
        or _thoughts(item.summary, f"{where}.summary")
    )


def _thoughts(given: str | list[dict[str, Any]] | None, where: str) -> str:
    if isinstance(given, str):
        return given
    return "\n".join(part.text for part in convert(given or [], list[ReasoningPart], where))


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
    if form.get("type") == "input_file":
        return ContentPart("text", file_text(convert(form, InputFile, where), where))
    part = convert(form, InputPart, where)
    if part.type == "image_url":
        name = f"{where}.image_url"
        if not part.image_url and form.get("file_id"):
            name = f"{where}.file_id"
            reason = "is not supported: give the image itself, as image_url"
            raise InvalidRequestError(f"{name} {reason}", param=name)
        if not part.image_url:
            raise InvalidRequestError(f"{name} is required", param=name)
        return MediaPart(part.type, image_url=part.image_url, name=name)
    return part if is_media(part) else ContentPart("text", part_text(part, where))
