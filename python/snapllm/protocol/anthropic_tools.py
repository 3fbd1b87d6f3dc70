"""The tools of Anthropic's Messages API: which of them the model gets, and whether it must call.

Reference: Anthropic API, "Create a Message", "Tool reference".
"""

from __future__ import annotations

import re

from snapllm.conversation import FunctionDefinition, Tool, ToolFields, ToolMode, offer_tools
from snapllm.errors import InvalidRequestError
from snapllm.protocol.anthropic_client_tools import client_tool
from snapllm.protocol.anthropic_types import MessagesRequest, MessagesTool

# Every tool is shown from the start, deferred ones too: there is nothing to search for.
_TOOL_SEARCH = "tool_search_tool_"
_HOSTED = re.compile(r"(?:web_search|web_fetch|code_execution|advisor)_\w+|mcp_toolset")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def offered(wire: MessagesRequest) -> tuple[list[Tool], ToolMode]:
    """The tools that the model is offered.

    Raises:
        InvalidRequestError: A tool is none that a client runs, or the choice does not fit.
    """
    given = {
        f"tools[{i}]": tool
        for i, tool in enumerate(wire.tools or ())
        if not (tool.type or "").startswith(_TOOL_SEARCH)
    }
    of_clients = {where: tool for where, tool in given.items() if not _is_hosted(tool)}
    given = of_clients or given
    tools = [Tool(_function(tool, where)) for where, tool in given.items()]
    fields = [ToolFields(f"{where}.name", f"{where}.input_schema") for where in given]
    choice = wire.tool_choice
    if choice is None or choice.type == "auto":
        return offer_tools(tools, "auto", fields=fields)
    if choice.type == "tool":
        if not choice.name:
            raise InvalidRequestError("tool_choice.name is required", param="tool_choice.name")
        return offer_tools(tools, "one", [choice.name], fields)
    return offer_tools(tools, "required" if choice.type == "any" else "none", fields=fields)


def _is_hosted(tool: MessagesTool) -> bool:
    """Whether it runs on Anthropic's servers, within an answer: beside tools of its own a client
    can do without."""
    return _HOSTED.fullmatch(tool.type or "") is not None


def _function(tool: MessagesTool, where: str) -> FunctionDefinition:
    if tool.type in (None, "custom"):
        if tool.input_schema is None:
            field = f"{where}.input_schema"
            raise InvalidRequestError(f"{field} is required", param=field)
        own = FunctionDefinition(tool.name, tool.description, tool.input_schema)
        function: FunctionDefinition | None = own
    else:
        function = client_tool(tool, where)
    if function is None:
        # Without it the model would make up what it was to find out.
        raise InvalidRequestError(
            f"{where}: there are no tools of type {tool.type!r} here; define one of your own "
            "in its place, which the client runs",
            param=f"{where}.type",
        )
    if not function.name:
        raise InvalidRequestError(f"{where}.name is required", param=f"{where}.name")
    if not _NAME.fullmatch(function.name):
        raise InvalidRequestError(
            f"{where}.name must be 1 to 128 letters, digits, _ and -", param=f"{where}.name"
        )
    return function
