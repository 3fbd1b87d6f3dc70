"""Conversations on their way to the model's template."""

from __future__ import annotations

import json
from typing import Any

from snapllm.conversation import (
    ContentPart,
    FunctionCall,
    Message,
    MessageToolCall,
    render_messages,
)


def calling(*ids: str) -> Message:
    calls = [MessageToolCall(FunctionCall("look", "{}"), call_id) for call_id in ids]
    return Message("assistant", tool_calls=calls)


def result(call_id: str, content: Any = None) -> Message:
    return Message("tool", content or call_id, tool_call_id=call_id)


def rendered(*messages: Message) -> list[dict[str, Any]]:
    def name(part: ContentPart, where: str) -> str:
        return where

    turns: list[dict[str, Any]] = json.loads(render_messages(messages, name))
    return turns


def test_results_come_in_the_order_of_their_calls() -> None:
    turns = rendered(
        calling("a", "b", "c"),
        *map(result, "bca"),
        Message("user", "And?"),
        calling("b", "a"),
        *map(result, "ab"),
    )
    ids = [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"]
    assert ids == ["a", "b", "c", "b", "a"]
    assert [turn["role"] for turn in turns] == [
        *("assistant", "tool", "tool", "tool", "user", "assistant", "tool", "tool")
    ]


def test_results_of_unknown_calls_come_last_as_they_stand() -> None:
    turns = rendered(calling("a"), *map(result, "yxa"))
    assert [turn["content"] for turn in turns[1:]] == ["a", "y", "x"]


def test_a_picture_is_shown_where_its_result_comes_to_stand() -> None:
    picture = ContentPart("image_url", image_url="data:")
    turns = rendered(calling("a", "b"), result("b", [picture]), result("a", [picture]))
    assert [turn["content"][0]["text"] for turn in turns[1:]] == [
        *("messages[2].content[0]", "messages[1].content[0]")
    ]
