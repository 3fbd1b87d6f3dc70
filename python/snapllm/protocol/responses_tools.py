"""The tools of OpenAI's Responses API.

Reference: OpenAI API, "Create a model response", `tools` and `tool_choice`. The model knows
functions only: tools of a namespace bear its name before their own, and a custom tool is a
function of one text. Their calls are written as calls of what the client defined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from snapllm._checks import convert
from snapllm.conversation import (
    FunctionDefinition,
    Tool,
    ToolFields,
    ToolMode,
    offer_tools,
    text_tool,
)
from snapllm.errors import InvalidRequestError
from snapllm.protocol.responses_types import (
    ADDITIONAL_TOOLS,
    InputItem,
    ResponsesAllowedTool,
    ResponsesTool,
    ResponsesToolChoice,
)

# Tools that run on OpenAI's servers, within an answer: no request can be without what it
# would do with them, and clients list them by habit.
_HOSTED = re.compile(
    r"web_search|web_search_\w+|file_search|code_interpreter|image_generation|mcp|tool_search"
)


class ClientTool(msgspec.Struct, frozen=True):
    """A tool as the client knows it, and the function that the model sees of it."""

    tool: Tool
    type: Literal["function", "custom"]
    name: str
    namespace: str | None
    where: str
    """Where the client gave it."""

    @property
    def shown_name(self) -> str:
        """The name that the model knows it by."""
        return self.tool.function.name


def shown_name(name: str, namespace: str | None) -> str:
    """The name that the model knows a tool by."""
    return f"{namespace}__{name}" if namespace else name


def read_tools(forms: Sequence[Mapping[str, Any]], field: str = "tools") -> list[ClientTool]:
    """The tools that the model can have; those that only OpenAI runs are left out.

    Args:
        forms: The tools as the client gave them.
        field: Where.

    Raises:
        InvalidRequestError: A tool is of another type, or incomplete.
    """
    tools: list[ClientTool] = []
    for i, form in enumerate(forms):
        where = f"{field}[{i}]"
        definition = convert(form, ResponsesTool, where)
        if definition.type == "namespace":
            tools += _of_namespace(definition, where)
        elif not _HOSTED.fullmatch(definition.type):
            tools.append(_tool(definition, None, where))
    return tools


def with_additional(
    tools: Sequence[ClientTool], items: Iterable[tuple[str, InputItem]]
) -> list[ClientTool]:
    """The tools and those that items of the conversation add, each with its place in the request.
    Of several with one name the last counts: what a history holds may come again, changed.

    Raises:
        InvalidRequestError: As of `read_tools`.
    """
    added = {
        tool.shown_name: tool
        for where, item in items
        if item.kind == ADDITIONAL_TOOLS
        for tool in read_tools(item.tools or (), f"{where}.tools")
    }
    return [*(tool for tool in tools if tool.shown_name not in added), *added.values()]


def _of_namespace(namespace: ResponsesTool, where: str) -> Iterator[ClientTool]:
    if not namespace.name:
        raise InvalidRequestError(f"{where}.name is required", param=f"{where}.name")
    for i, form in enumerate(namespace.tools or ()):
        inner = f"{where}.tools[{i}]"
        yield _tool(convert(form, ResponsesTool, inner), namespace.name, inner)


def _tool(definition: ResponsesTool, namespace: str | None, where: str) -> ClientTool:
    name = definition.name or ""
    if definition.type == "function":
        shown = shown_name(name, namespace) if name else ""
        function = FunctionDefinition(shown, definition.description, definition.parameters)
        return ClientTool(Tool(function), "function", name, namespace, where)
    if definition.type == "custom":
        if definition.format is not None and definition.format.type != "text":
            raise InvalidRequestError(
                f"{where}.format: only text is supported, without a grammar",
                param=f"{where}.format",
            )
        tool = text_tool(shown_name(name, namespace) if name else "", definition.description)
        return ClientTool(tool, "custom", name, namespace, where)
    raise InvalidRequestError(
        f"{where}: tools of type {definition.type!r} are not supported", param=f"{where}.type"
    )


def offer(
    tools: Sequence[ClientTool],
    choice: Literal["auto", "none", "required"] | ResponsesToolChoice | None,
) -> tuple[list[Tool], ToolMode]:
    """Decides which tools are offered and whether one must be called.

    Raises:
        InvalidRequestError: The tools cannot be offered, or what is chosen is not among them.
    """
    mode: ToolMode = "one"
    names: list[str] | None
    if not isinstance(choice, ResponsesToolChoice):
        mode, names = choice or "auto", None
    elif choice.type == "allowed_tools":
        if choice.tools is None:
            raise InvalidRequestError("tool_choice.tools is required", param="tool_choice.tools")
        mode = choice.mode or "auto"
        names = [
            name
            for i, allowed in enumerate(choice.tools)
            if not _HOSTED.fullmatch(allowed.type)
            for name in _chosen(tools, allowed, f"tool_choice.tools[{i}]")
        ]
    else:
        one = ResponsesAllowedTool(choice.type, choice.name, choice.namespace)
        names = _chosen(tools, one, "tool_choice")
    shown = [each.tool for each in tools]
    fields = [ToolFields(f"{each.where}.name", f"{each.where}.parameters") for each in tools]
    return offer_tools(shown, mode, names, fields)


def _chosen(tools: Sequence[ClientTool], choice: ResponsesAllowedTool, where: str) -> list[str]:
    """The names that the model knows the tools by that are meant."""
    if choice.type not in ("function", "custom", "namespace"):
        raise InvalidRequestError(
            f"{where}: a tool of type {choice.type!r} cannot be called here", param=f"{where}.type"
        )
    if choice.name is None:
        raise InvalidRequestError(f"{where}.name is required", param=f"{where}.name")
    if choice.type == "namespace":
        found = [each for each in tools if each.namespace == choice.name]
    else:
        found = [
            each
            for each in tools
            if each.type == choice.type
            and choice.name in (each.name, each.shown_name)
            and choice.namespace in (None, each.namespace)
        ]
    if not found:
        raise InvalidRequestError(
            f"{where}: no {choice.type} is named {choice.name!r}", param="tool_choice"
        )
    return [each.shown_name for each in found]


def echo(forms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tools as an answer repeats them: as they were given, functions with all fields."""
    all_fields = {"description": None, "parameters": None, "strict": None}
    return [(all_fields if form.get("type") == "function" else {}) | dict(form) for form in forms]
