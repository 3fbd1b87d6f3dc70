"""The tools of OpenAI's chat completions, and their calls.

Reference: OpenAI API, "Create chat completion", `tools` and `tool_choice`. The model knows
functions only; a custom tool is a function of one text to it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, TypeVar

from snapllm.conversation import Tool, ToolFields, ToolMode, offer_tools, text_tool
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ToolCall, ToolCallDelta, ToolCallStart
from snapllm.protocol.custom_tools import TextReader, text_of
from snapllm.protocol.openai_types import (
    ChatAllowedTool,
    ChatCompletionRequest,
    ChatTool,
    ChatToolChoice,
)

if TYPE_CHECKING:
    from snapllm.protocol.openai_answer_types import CalledCustomTool, CalledFunction, CalledTool
    from snapllm.protocol.stream_types import ChatDelta, ToolCallPiece

_T = TypeVar("_T")


def read_tools(wire: ChatCompletionRequest) -> tuple[list[Tool], ToolMode]:
    """The tools that are offered and whether one must be called.

    Raises:
        InvalidRequestError: A tool is incomplete, or what is chosen is not among them.
    """
    definitions = wire.tools or []
    tools = [_tool(definition, f"tools[{i}]") for i, definition in enumerate(definitions)]
    forms = [f"tools[{i}].{each.type}" for i, each in enumerate(definitions)]
    fields = [ToolFields(f"{form}.name", f"{form}.parameters") for form in forms]
    choice = wire.tool_choice
    if not isinstance(choice, ChatToolChoice):
        mode = "required" if choice == "any" else choice or "auto"  # Mistral's clients say "any"
        return offer_tools(tools, mode, fields=fields)
    if choice.type == "allowed_tools":
        allowed = _given(choice.allowed_tools, "tool_choice.allowed_tools")
        where = "tool_choice.allowed_tools.tools"
        names = [_name(each, f"{where}[{i}]") for i, each in enumerate(allowed.tools)]
        return offer_tools(tools, allowed.mode, names, fields)
    name = _name(ChatAllowedTool(choice.type, choice.function, choice.custom), "tool_choice")
    return offer_tools(tools, "one", [name], fields)


def custom_names(wire: ChatCompletionRequest) -> frozenset[str]:
    """The names of the custom tools."""
    tools = wire.tools or ()
    return frozenset(
        tool.custom.name for tool in tools if tool.type == "custom" and tool.custom is not None
    )


def _given(value: _T | None, field: str) -> _T:
    if value is None:
        raise InvalidRequestError(f"{field} is required", param=field)
    return value


def _tool(definition: ChatTool, where: str) -> Tool:
    if definition.type == "function":
        return Tool(_given(definition.function, f"{where}.function"))
    custom = _given(definition.custom, f"{where}.custom")
    if custom.format is not None and custom.format.type != "text":
        field = f"{where}.custom.format"
        raise InvalidRequestError(
            f"{field}: only text is supported, without a grammar", param=field
        )
    return text_tool(custom.name, custom.description)


def _name(choice: ChatAllowedTool, where: str) -> str:
    chosen = choice.custom if choice.type == "custom" else choice.function
    return _given(chosen, f"{where}.{choice.type}").name


def call_object(call: ToolCall, custom: Collection[str]) -> CalledTool:
    """A call of a whole answer."""
    if call.name in custom:
        called: CalledCustomTool = {"name": call.name, "input": text_of(call.arguments)}
        return {"id": call.id, "type": "custom", "custom": called}
    function: CalledFunction = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


class CallStream:
    """Writes the calls of one streamed answer, piece by piece."""

    def __init__(self, custom: Collection[str]) -> None:
        self._custom = custom
        self._readers: dict[int, TextReader] = {}
        self.has_begun = False

    def deltas(self, event: ToolCallStart | ToolCallDelta) -> list[ChatDelta]:
        """The deltas that an event brings."""
        return _deltas(self._pieces(event))

    def rest(self) -> list[ChatDelta]:
        """The deltas of what is left of calls that are over."""
        return _deltas(self._rest())

    def _pieces(self, event: ToolCallStart | ToolCallDelta) -> list[ToolCallPiece]:
        if isinstance(event, ToolCallDelta):
            if event.index not in self._readers:
                return [{"index": event.index, "function": {"arguments": event.arguments}}]
            return _texts(event.index, self._readers[event.index].read(event.arguments))
        self.has_begun = True
        pieces = self._rest()
        begun: ToolCallPiece = {"index": event.index, "id": event.id}
        if event.name in self._custom:
            self._readers[event.index] = TextReader()
            begun["type"], begun["custom"] = "custom", {"name": event.name, "input": ""}
        else:
            begun["type"], begun["function"] = "function", {"name": event.name, "arguments": ""}
        return [*pieces, begun]

    def _rest(self) -> list[ToolCallPiece]:
        pieces = [
            piece for i, reader in self._readers.items() for piece in _texts(i, reader.rest())
        ]
        self._readers.clear()
        return pieces


def _deltas(pieces: list[ToolCallPiece]) -> list[ChatDelta]:
    return [{"tool_calls": [piece]} for piece in pieces]


def _texts(index: int, text: str) -> list[ToolCallPiece]:
    return [{"index": index, "custom": {"input": text}}] if text else []
