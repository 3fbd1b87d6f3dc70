"""The tools that Anthropic defines and the client runs: a shell, a text editor, a memory and a
computer.

A request has their type and name only. Other models have to be told what they do and take.
The schemas are flat, as the templates of many models list properties and know no alternatives.

Reference: Anthropic API, "Bash tool", "Text editor tool", "Memory tool", "Computer use tool".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from snapllm.conversation import FunctionDefinition
from snapllm.errors import InvalidRequestError
from snapllm.protocol.anthropic_types import MessagesTool

Schema = dict[str, Any]

_DATED_TYPE = re.compile(r"(bash|text_editor|memory|computer)_(\d{8})")
# From this version on there is no undoing, and what is inserted is called insert_text.
_EDITOR_WITHOUT_UNDO = 20250429
_EDITOR_WITH_INSERT_TEXT = 20250728
_COMPUTER_WITH_SCROLLING = 20250124
_COMPUTER_WITH_ZOOM = 20251124


def client_tool(tool: MessagesTool, where: str) -> FunctionDefinition | None:
    """What the model is told of a tool that Anthropic defines and the client runs.

    Returns:
        The function under the tool's own name; None = the type is none of these.

    Raises:
        InvalidRequestError: A computer has no display size; `param` names the field.
    """
    dated = _DATED_TYPE.fullmatch(tool.type or "")
    if dated is None:
        return None
    description, schema = _DEFINITIONS[dated[1]](tool, int(dated[2]), where)
    return FunctionDefinition(tool.name, description, schema)


def _bash(_tool: MessagesTool, _version: int, _where: str) -> tuple[str, Schema]:
    command = _text("The command to run; empty for a restart")
    restart = {"type": "boolean", "description": "Whether to start the shell anew instead"}
    return (
        "Runs a command in a bash shell that stays open between calls, and returns its output.",
        _object({"command": command, "restart": restart}, "command"),
    )


def _text_editor(_tool: MessagesTool, version: int, _where: str) -> tuple[str, Schema]:
    commands = ["view", "create", "str_replace", "insert"]
    if version < _EDITOR_WITHOUT_UNDO:
        commands.append("undo_edit")
    inserted = "insert_text" if version >= _EDITOR_WITH_INSERT_TEXT else "new_str"
    properties = {
        "command": _choice("What to do", commands),
        "path": _text("The absolute path of the file or folder"),
    } | _edits(inserted)
    undo = "; undo_edit takes the last change back" if "undo_edit" in commands else ""
    return (
        "Views, creates and changes text files. view shows a file with line numbers, or lists a "
        f"folder; create writes file_text; str_replace replaces old_str, which must occur exactly "
        f"once, by new_str; insert puts {inserted} after the line insert_line{undo}.",
        _object(properties, "command", "path"),
    )


def _memory(_tool: MessagesTool, _version: int, _where: str) -> tuple[str, Schema]:
    commands = ["view", "create", "str_replace", "insert", "delete", "rename"]
    properties = {
        "command": _choice("What to do", commands),
        "path": _text("The path below /memories, for all commands but rename"),
        **_edits("insert_text"),
        "old_path": _text("For rename: the path as it is"),
        "new_path": _text("For rename: the path as it is to be"),
    }
    return (
        "Keeps notes in files below /memories from one conversation to the next. Look at them with "
        "view before you begin, and write down what will be needed later. view shows a file or "
        "lists a folder; create writes file_text; str_replace replaces old_str by new_str; insert "
        "puts insert_text after the line insert_line; delete removes path; rename moves old_path "
        "to new_path.",
        _object(properties, "command"),
    )


def _computer(tool: MessagesTool, version: int, where: str) -> tuple[str, Schema]:
    size = []
    for field in ("display_width_px", "display_height_px"):
        if getattr(tool, field) is None:
            raise InvalidRequestError(f"{where}.{field} is required", param=f"{where}.{field}")
        size.append(getattr(tool, field))
    actions = [
        *("screenshot", "left_click", "right_click", "middle_click", "double_click"),
        *("mouse_move", "left_click_drag", "cursor_position", "type", "key"),
    ]
    properties: Schema = {
        "coordinate": _numbers("[x, y] of where to act, in pixels", 2),
        "text": _text("What to type; for key, the keys, such as ctrl+s"),
    }
    if version >= _COMPUTER_WITH_SCROLLING:
        actions += [
            "triple_click",
            "left_mouse_down",
            "left_mouse_up",
            "scroll",
            "hold_key",
            "wait",
        ]
        directions = ["up", "down", "left", "right"]
        properties |= {
            "start_coordinate": _numbers("For left_click_drag: [x, y] of where it begins", 2),
            "scroll_direction": _choice("For scroll: where to", directions),
            "scroll_amount": {"type": "integer", "description": "For scroll: how many clicks"},
            "duration": {"type": "number", "description": "For hold_key and wait: seconds"},
        }
    if version >= _COMPUTER_WITH_ZOOM and tool.enable_zoom:
        actions.append("zoom")
        properties["region"] = _numbers("For zoom: [x0, y0, x1, y1] of what to enlarge", 4)
    return (
        f"Acts on a computer with mouse and keyboard. Its screen is {size[0]} pixels wide and "
        f"{size[1]} high; [0, 0] is at the top left. Take a screenshot to see it.",
        _object({"action": _choice("What to do", actions)} | properties, "action"),
    )


_Define = Callable[[MessagesTool, int, str], tuple[str, Schema]]
_DEFINITIONS: dict[str, _Define] = {
    "bash": _bash,
    "text_editor": _text_editor,
    "memory": _memory,
    "computer": _computer,
}


def _edits(inserted: str) -> Schema:
    """The parameters of viewing and changing files; `inserted` is what insert puts there."""
    properties = {
        "view_range": _numbers("For view: the first and the last line to show; -1 = the end", 2),
        "file_text": _text("For create: the content"),
        "old_str": _text("For str_replace: the text to replace"),
        "new_str": _text("For str_replace: the text in its place"),
        "insert_line": {
            "type": "integer",
            "description": "For insert: the line to insert after; 0 = at the beginning",
        },
    }
    if inserted == "new_str":
        properties["new_str"] = _text("For str_replace and insert: the new text")
    else:
        properties[inserted] = _text("For insert: the new text")
    return properties


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _choice(description: str, values: list[str]) -> Schema:
    return {"type": "string", "enum": values, "description": description}


def _numbers(description: str, length: int) -> Schema:
    return {
        "type": "array",
        "items": {"type": "integer"},
        "minItems": length,
        "maxItems": length,
        "description": description,
    }
