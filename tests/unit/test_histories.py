"""What the model gets to see of a conversation, by whichever protocol it came."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from snapllm.conversation import Message, render_messages
from snapllm.errors import InvalidRequestError
from snapllm.protocol import anthropic, openai, responses
from snapllm.protocol.carried_reasoning import encode_reasoning

ASK = {"role": "user", "content": "What's the weather in Tokyo?"}
THOUGHT, TEXT, NAME, ARGUMENTS = "I need the tool.", "Let me check.", "look", '{"at":"Tokyo"}'


def shown(messages: list[Message]) -> Any:
    return json.loads(render_messages(messages, lambda part, where: ""))


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def of_items(*items: dict[str, Any]) -> Any:
    return shown(responses.parse(body(input=[ASK, *items]))[0].messages)[1:]


def thought(text: str = THOUGHT) -> dict[str, Any]:
    parts = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": parts}


def said(text: str = TEXT) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "role": "assistant", "id": "msg_1", "content": [part]}


def call(number: int = 1) -> dict[str, Any]:
    called = {"name": NAME, "arguments": ARGUMENTS}
    return {"type": "function_call", "call_id": f"{number}", **called}


def output(number: int = 1) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"{number}", "output": "22"}


@pytest.mark.parametrize(
    ("thinks", "speaks", "num_calls"), list(product((False, True), (False, True), (0, 1, 2)))[1:]
)
def test_an_answer_of_the_history_is_the_same_turn_in_every_protocol(
    thinks: bool, speaks: bool, num_calls: int
) -> None:
    numbers = range(1, num_calls + 1)
    function = {"name": NAME, "arguments": ARGUMENTS}
    calls = [{"id": f"{i}", "type": "function", "function": function} for i in numbers]
    answer = {
        "role": "assistant",
        "content": TEXT if speaks else None,
        **({"reasoning_content": THOUGHT} if thinks else {}),
        **({"tool_calls": calls} if calls else {}),
    }
    results = [{"role": "tool", "tool_call_id": f"{i}", "content": "22"} for i in numbers]
    by_chat = shown(openai.parse_chat(body(messages=[ASK, answer, *results, ASK])).request.messages)
    blocks = [
        *([{"type": "thinking", "thinking": THOUGHT, "signature": "x"}] if thinks else []),
        *([{"type": "text", "text": TEXT}] if speaks else []),
        *(
            {"type": "tool_use", "id": f"toolu_{i}", "name": NAME, "input": json.loads(ARGUMENTS)}
            for i in numbers
        ),
    ]
    told = [{"type": "tool_result", "tool_use_id": f"toolu_{i}", "content": "22"} for i in numbers]
    asked = {"role": "user", "content": [*told, {"type": "text", "text": ASK["content"]}]}
    turns = [ASK, {"role": "assistant", "content": blocks}, asked]
    by_messages = shown(
        anthropic.parse_messages(body(max_tokens=5, messages=turns)).request.messages
    )
    items = [
        *([thought()] if thinks else []),
        *([said()] if speaks else []),
        *map(call, numbers),
        *map(output, numbers),
    ]
    by_responses = [by_chat[0], *of_items(*items, ASK)]
    assert by_messages == by_chat
    assert by_responses == by_chat


def test_text_after_text_and_thoughts_after_text_begin_another_answer() -> None:
    assert [turn["content"] for turn in of_items(said("One."), said("Two."))] == ["One.", "Two."]
    first, second = of_items(thought("A"), said("One."), thought("B"), said("Two."))
    assert (first["reasoning_content"], first["content"]) == ("A", "One.")
    assert (second["reasoning_content"], second["content"]) == ("B", "Two.")


def test_an_answer_is_not_over_before_its_calls_have_outputs() -> None:
    items = [call(1), thought("B"), said(), call(2), output(1), output(2), thought("C"), said()]
    first, _, _, second = of_items(thought("A"), *items)
    assert (first["reasoning_content"], first["content"]) == ("A\nB", TEXT)
    assert [each["id"] for each in first["tool_calls"]] == ["1", "2"]
    assert (second["reasoning_content"], second["content"]) == ("C", TEXT)


def test_a_summary_stands_for_thoughts_that_are_not_given() -> None:
    parts = [{"type": "summary_text", "text": text} for text in ("A", "B")]
    [turn] = of_items({"type": "reasoning", "summary": parts}, said())
    assert turn["reasoning_content"] == "A\nB"
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
    assert of_items(sealed) == []


def test_thoughts_that_a_client_carries_are_those_it_was_given() -> None:
    carried = {"type": "reasoning", "summary": [], "encrypted_content": encode_reasoning(THOUGHT)}
    assert of_items(carried, said()) == of_items(thought(), said())


def test_a_thought_without_text_is_named() -> None:
    broken = thought() | {"content": [{"type": "reasoning_text"}]}
    with pytest.raises(InvalidRequestError) as caught:
        of_items(broken)
    assert caught.value.param == "input[1].content[0].text"


GOAL = {"type": "function_call_output", "id": "fco_1", "name": "goal_objective"}


@pytest.mark.parametrize("kind", ["function_call_output", "custom_tool_call_output"])
def test_what_a_tool_says_without_a_call_is_told_behind_the_outputs_of_calls(kind: str) -> None:
    goal = GOAL | {"type": kind, "namespace": "agent", "output": "tests pass"}
    turns = of_items(call(1), goal, call(2), output(1), goal, output(2), said())
    assert [turn["role"] for turn in turns] == [
        *("assistant", "tool", "tool", "user", "user", "assistant")
    ]
    assert [turn["content"] for turn in turns[3:5]] == ["agent__goal_objective:\ntests pass"] * 2
    parts = [{"type": "input_text", "text": text} for text in ("a", "b")]
    [turn] = of_items(GOAL | {"output": parts})
    assert turn == {"role": "user", "content": "goal_objective:\na\nb"}
    with pytest.raises(InvalidRequestError) as caught:
        of_items(GOAL)
    assert caught.value.param == "input[1].output"


def test_a_message_of_another_agent_is_told_as_far_as_it_can_be_read() -> None:
    told = {"type": "input_text", "text": "Look at the tests."}
    sealed = {"type": "encrypted_content", "encrypted_content": "x"}
    message = {"type": "agent_message", "author": "/root", "recipient": "/root/looker"}
    [turn] = of_items(message | {"content": [told, sealed]})
    assert turn == {"role": "user", "content": "/root to /root/looker:\nLook at the tests."}
    assert of_items(message | {"content": [sealed]}) == []
    with pytest.raises(InvalidRequestError, match="none of it is said") as caught:
        responses.parse(body(input=[message | {"content": []}]))
    assert caught.value.param == "input"
    for broken, param in (({}, "content"), ({"content": [{"type": "odd"}]}, "content[0].type")):
        with pytest.raises(InvalidRequestError) as caught:
            of_items(message | broken)
        assert caught.value.param == f"input[1].{param}"
