"""The tools of Anthropic's Messages API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snapllm.conversation import FunctionDefinition
from snapllm.errors import InvalidRequestError
from snapllm.protocol import anthropic

OWN: dict[str, Any] = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
DISPLAY = {"display_width_px": 1024, "display_height_px": 768}


def offered(*tools: dict[str, Any], **fields: Any) -> list[FunctionDefinition]:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "m", "max_tokens": 20, "messages": messages, "tools": tools} | fields
    request = anthropic.parse_messages(json.dumps(body).encode()).request
    return [tool.function for tool in request.tools]


def properties(type_: str, **fields: Any) -> dict[str, Any]:
    """The parameters of the tool of that type, each of which has a description."""
    [function] = offered({"type": type_, "name": "x"} | fields)
    assert function.name == "x" and function.description and function.parameters
    named: dict[str, Any] = function.parameters["properties"]
    assert set(function.parameters["required"]) <= set(named)
    assert all(each["description"] for each in named.values())
    return named


@pytest.mark.parametrize("version", ["bash_20241022", "bash_20250124", "bash_20300101"])
def test_the_shell_takes_a_command_or_a_restart(version: str) -> None:
    assert set(properties(version)) == {"command", "restart"}


EDITOR = {"command", "path", "view_range", "file_text", "old_str", "new_str", "insert_line"}


@pytest.mark.parametrize(
    ("version", "can_undo", "more"),
    [
        ("text_editor_20241022", True, set()),
        ("text_editor_20250124", True, set()),
        ("text_editor_20250429", False, set()),
        ("text_editor_20250728", False, {"insert_text"}),
    ],
)
def test_the_text_editor_takes_what_its_version_does(
    version: str, can_undo: bool, more: set[str]
) -> None:
    named = properties(version)
    assert set(named) == EDITOR | more
    assert ("undo_edit" in named["command"]["enum"]) == can_undo


def test_the_memory_takes_what_the_sdks_commands_have() -> None:
    named = properties("memory_20250818")
    assert set(named) == EDITOR | {"insert_text", "old_path", "new_path"}
    commands = ["view", "create", "str_replace", "insert", "delete", "rename"]
    assert named["command"]["enum"] == commands


def test_the_computer_takes_what_its_version_does_and_says_how_large_it_is() -> None:
    old = properties("computer_20241022", **DISPLAY)
    assert set(old) == {"action", "coordinate", "text"}
    new = properties("computer_20250124", **DISPLAY, enable_zoom=True)
    assert "scroll" in new["action"]["enum"] and "zoom" not in new["action"]["enum"]
    assert {"scroll_direction", "scroll_amount", "duration", "start_coordinate"} <= set(new)
    assert "region" not in properties("computer_20251124", **DISPLAY)
    zooming = properties("computer_20251124", **DISPLAY, enable_zoom=True)
    assert "region" in zooming and "zoom" in zooming["action"]["enum"]
    [computer] = offered({"type": "computer_20251124", "name": "computer"} | DISPLAY)
    assert "1024 pixels wide and 768" in (computer.description or "")


def test_deferred_tools_are_offered_without_a_search_for_them() -> None:
    search = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    [function] = offered(search, OWN | {"defer_loading": True})
    assert function.name == "look"


def test_beside_tools_of_its_own_a_client_can_do_without_those_of_other_servers() -> None:
    for kind in ("web_search_20250305", "web_fetch_20250910", "mcp_toolset"):
        [function] = offered({"type": kind, "name": "hosted"}, OWN)
        assert function.name == "look"


@pytest.mark.parametrize(
    ("tools", "fields", "param"),
    [
        ([{"type": "web_search_20250305", "name": "web_search"}], {}, "tools[0].type"),
        (
            [OWN, {"type": "web_search_20250305", "name": "web_search"}],
            {"tool_choice": {"type": "tool", "name": "web_search"}},
            "tool_choice",
        ),
        ([{"type": "code_execution_20260521", "name": "code_execution"}], {}, "tools[0].type"),
        ([{"type": "mcp_toolset", "mcp_server_name": "files"}], {}, "tools[0].type"),
        ([{"type": "computer_toolset_20260801"}], {}, "tools[0].type"),
        ([{"type": "bash_20250124"}], {}, "tools[0].name"),
        ([{"input_schema": {}}], {}, "tools[0].name"),
        ([OWN, {"name": "find"}], {}, "tools[1].input_schema"),
        ([OWN | {"name": "look up"}], {}, "tools[0].name"),
        ([OWN | {"name": "a" * 129}], {}, "tools[0].name"),
        ([{"type": "bash_20250124", "name": "ba.sh"}], {}, "tools[0].name"),
        ([OWN, OWN], {}, "tools[1].name"),
        ([{"type": "tool_search_tool_bm25", "name": "search"}, OWN, OWN], {}, "tools[2].name"),
        ([OWN | {"input_schema": {"type": "string"}}], {}, "tools[0].input_schema.type"),
        (
            [{"type": "computer_20250124", "name": "computer", "display_width_px": 1024}],
            {},
            "tools[0].display_height_px",
        ),
        (
            [OWN, {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}],
            {"tool_choice": {"type": "tool", "name": "tool_search_tool_regex"}},
            "tool_choice",
        ),
    ],
)
def test_a_tool_that_is_not_here_is_named(
    tools: list[Any], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        offered(*tools, **fields)
    assert caught.value.param == param
