"""What `cache_control` marks in Anthropic's messages."""

from __future__ import annotations

import time
from typing import Any

import pytest
from anthropic_bodies import HELLO, LOOK, parse

from snapllm.outputs import Usage
from snapllm.protocol.anthropic_answers import Answer

MARK = {"cache_control": {"type": "ephemeral"}}


def marked(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": text} | MARK | fields


TEXT, CALL = (
    {"type": "text", "text": "b"},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
)
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "c"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messages": [{"role": "user", "content": [marked("a"), TEXT]}]}, [("user", "a")]),
        (
            {"messages": [{"role": "user", "content": [marked("a")]}, *HELLO]},
            [("user", "a")],
        ),
        ({"system": [marked("a"), TEXT]}, [("system", "a"), ("user", "")]),
        ({"tools": [LOOK | MARK]}, [("user", "")]),
        ({"tools": [LOOK | MARK], "system": "a"}, [("system", "a"), ("user", "")]),
        (
            {
                "messages": [
                    *HELLO,
                    {"role": "assistant", "content": [marked("a"), CALL]},
                    {"role": "user", "content": [RESULT, TEXT]},
                ]
            },
            [("user", "Hi"), ("assistant", "a")],
        ),
        (
            {
                "messages": [
                    *HELLO,
                    {"role": "assistant", "content": [CALL]},
                    {"role": "user", "content": [RESULT | MARK, TEXT]},
                ]
            },
            [("user", "Hi"), ("assistant", ""), ("tool", "c")],
        ),
        (
            {
                "messages": [
                    *HELLO,
                    {"role": "assistant", "content": [CALL]},
                    {"role": "user", "content": [RESULT | {"content": [marked("c")]}, TEXT]},
                ]
            },
            [("user", "Hi"), ("assistant", ""), ("tool", "c")],
        ),
        (MARK, [("user", "Hi")]),
    ],
)
def test_what_is_marked_ends_with_the_marked_block(
    fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    mark = parse(**fields).breakpoint
    assert mark is not None
    found = []
    for message in mark.messages:
        parts = message.content if isinstance(message.content, list) else None
        text = "".join(part.text or "" for part in parts) if parts else message.content
        found.append((message.role, text))
    assert found == expected


def test_of_many_marks_the_last_one_counts() -> None:
    turn: list[Any] = [{"role": "user", "content": [marked("a"), marked("b"), TEXT]}]
    answer = {"role": "assistant", "content": [marked("c"), marked("d"), TEXT]}
    mark = parse(
        tools=[LOOK | MARK],
        system=[marked("s"), marked("t", cache_control={"type": "ephemeral", "ttl": "1h"})],
        messages=[*turn, answer, *turn],
    ).breakpoint
    assert mark is not None and mark.ttl == "5m"
    assert [message.role for message in mark.messages] == ["system", "user", "assistant", "user"]
    assert [len(mark.messages[i].content or "") for i in (1, 3)] == [3, 2]
    assert mark.messages[2].content == "c\nd\nb"


HOUR = {"type": "ephemeral", "ttl": "1h"}


def test_what_an_hour_is_asked_for_ends_with_the_last_such_mark() -> None:
    system = [marked("s", cache_control=HOUR), TEXT]
    mixed = parse(system=system, messages=[{"role": "user", "content": [marked("a")]}]).breakpoint
    assert mixed is not None and mixed.ttl == "5m"
    assert mixed.for_an_hour is not None
    assert [message.content for message in mixed.for_an_hour] == ["s", ""]
    alone = parse(system=[marked("t"), *system]).breakpoint
    assert alone is not None and (alone.ttl, alone.for_an_hour) == ("1h", None)


@pytest.mark.parametrize(
    ("num_cached", "of_5m", "of_1h"), [(0, 30, 50), (60, 20, 0), (20, 30, 30), (90, 0, 0)]
)
def test_created_tokens_are_booked_under_the_mark_they_are_before(
    num_cached: int, of_5m: int, of_1h: int
) -> None:
    usage = Usage(num_prompt_tokens=100, num_cached_tokens=num_cached)
    told = Answer(parse(), num_marked_tokens=80, num_hour_tokens=50).usage(usage)
    assert told["cache_creation"] == {
        "ephemeral_5m_input_tokens": of_5m,
        "ephemeral_1h_input_tokens": of_1h,
    }
    assert told["cache_creation_input_tokens"] == of_5m + of_1h


SAID = {"role": "assistant", "content": [marked("x")]}


@pytest.mark.parametrize(
    "fields",
    [
        {"system": [marked("x")] * 8000},
        {"messages": [*HELLO, {"role": "assistant", "content": [marked("x")] * 8000}, *HELLO]},
        {"messages": [{"role": "user", "content": [marked("x")] * 20_000}]},
        {"messages": [{"role": "user", "content": [marked("x")]}, SAID] * 10_000 + HELLO},
    ],
)
def test_many_marks_take_little_time(fields: dict[str, Any]) -> None:
    """A quarter of a second at most; with a copy for each mark it were a minute."""
    began = time.thread_time()
    assert parse(**fields).breakpoint is not None
    assert time.thread_time() - began < 10
