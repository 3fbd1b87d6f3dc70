"""Custom tools: the text they are called with, in both of OpenAI's APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snapllm.conversation import render_messages
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ChatResult, Finish, ToolCall, ToolCallDelta, ToolCallStart
from snapllm.protocol import openai, responses
from snapllm.protocol.custom_tools import TextReader, text_of
from snapllm.protocol.responses_answers import ResponseStream

TEXT = 'a "b"\n\\ \u00e9 \U0001f600 \x7f/'
FINISH = Finish(finish_reason="tool_calls")


@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_text_is_read_from_pieces_of_its_json(is_ascii: bool, size: int) -> None:
    arguments = json.dumps({"input": TEXT}, ensure_ascii=is_ascii)
    reader = TextReader()
    pieces = [reader.read(arguments[i : i + size]) for i in range(0, len(arguments), size)]
    assert "".join(pieces) + reader.rest() == TEXT
    if size == 1:
        assert sum(map(bool, pieces)) == len(TEXT), "the pieces wait for the end"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": ""}', ""),
        ('{"x": "y", "input": "z"}', "z"),
        ('{"input": "cut of', "cut of"),
        ('{"input": "half \\ud83d', "half "),
        ('{"input":', ""),
        ('{ "inp', ""),
        ("{", ""),
        ('{"other": 5}', '{"other": 5}'),
        ("no json", "no json"),
        ("", ""),
    ],
)
def test_arguments_of_any_form_have_a_text(arguments: str, text: str) -> None:
    assert text_of(arguments) == text


def chat_tool(**fields: Any) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": "patch", "description": "Edits", **fields}}


def chat(**fields: Any) -> openai.Parsed:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return openai.parse_chat(json.dumps(body).encode())


def test_the_model_sees_a_function_of_one_text() -> None:
    by_chat = chat(tools=[chat_tool()]).request.tools
    own = {"type": "custom", "name": "patch", "description": "Edits", "format": {"type": "text"}}
    body = {"model": "m", "input": "Hi", "tools": [own]}
    assert responses.parse(json.dumps(body).encode()).request.tools == by_chat
    [tool] = by_chat
    assert tool.function.parameters == {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
    }


def test_a_custom_tool_can_be_chosen() -> None:
    tools = [chat_tool(), {"type": "function", "function": {"name": "look"}}]
    named = {"type": "custom", "custom": {"name": "patch"}}
    some = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    for choice, mode in ((named, "one"), (some, "required")):
        request = chat(tools=tools, tool_choice=choice).request
        assert [tool.function.name for tool in request.tools] == ["patch"]
        assert request.tool_choice == mode


def test_a_grammar_is_refused_not_ignored() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}}
    with pytest.raises(InvalidRequestError) as caught:
        chat(tools=[chat_tool(format=grammar)])
    assert caught.value.param == "tools[0].custom.format"
    tool = {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark"}}
    with pytest.raises(InvalidRequestError) as caught:
        responses.parse(json.dumps({"model": "m", "input": "Hi", "tools": [tool]}).encode())
    assert caught.value.param == "tools[0].format"


def test_a_tool_without_its_definition_is_named() -> None:
    for form, param in (
        ({"type": "custom"}, "tools[0].custom"),
        ({"type": "function"}, "tools[0].function"),
        (chat_tool(name=""), "tools[0].custom.name"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            chat(tools=[form])
        assert caught.value.param == param


def test_a_chat_calls_it_with_text_streamed_and_whole() -> None:
    arguments = json.dumps({"input": TEXT})
    parsed = chat(tools=[chat_tool()])
    result = ChatResult(content="", tool_calls=[ToolCall("1", "patch", arguments)])
    whole = json.loads(openai.Encoder("m", parsed.custom_tools).response([result]))
    [call] = whole["choices"][0]["message"]["tool_calls"]
    assert call == {"id": "1", "type": "custom", "custom": {"name": "patch", "input": TEXT}}

    encoder = openai.Encoder("m", parsed.custom_tools)
    events = [ToolCallStart(0, "1", "patch"), *(ToolCallDelta(0, c) for c in arguments), FINISH]
    chunks = [json.loads(chunk) for event in events for chunk in encoder.chunks(0, event)]
    deltas = [chunk["choices"][0]["delta"].get("tool_calls", [{}])[0] for chunk in chunks]
    assert deltas[0] == {"index": 0, **call, "custom": {"name": "patch", "input": ""}}
    assert "".join(delta["custom"]["input"] for delta in deltas[1:-1]) == TEXT
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_response_calls_it_with_text() -> None:
    body = {"model": "m", "input": "Hi", "tools": [{"type": "custom", "name": "patch"}]}
    parsed = responses.parse(json.dumps(body).encode())
    builder = ResponseStream(parsed.wire, parsed.tools)
    arguments = json.dumps({"input": TEXT})
    given = [ToolCallStart(0, "1", "patch"), *(ToolCallDelta(0, c) for c in arguments), FINISH]
    events = [event for each in given for event in builder.events(each)]
    [item] = builder.response["output"]
    assert (item["type"], item["call_id"], item["name"]) == ("custom_tool_call", "1", "patch")
    assert item["input"] == TEXT
    deltas = [e["delta"] for e in events if e["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == TEXT
    [done] = [e for e in events if e["type"] == "response.custom_tool_call_input.done"]
    assert done["input"] == TEXT


def test_calls_of_the_history_are_the_same_to_the_model_in_both_apis() -> None:
    call = {"id": "1", "type": "custom", "custom": {"name": "patch", "input": TEXT}}
    result = {"role": "tool", "tool_call_id": "1", "content": "ok"}
    by_chat = chat(messages=[{"role": "assistant", "tool_calls": [call]}, result]).request
    items = [
        {"type": "custom_tool_call", "call_id": "1", "name": "patch", "input": TEXT},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "ok"},
    ]
    by_items = responses.parse(json.dumps({"model": "m", "input": items}).encode()).request
    shown, same = (
        json.loads(render_messages(request.messages, lambda *_: ""))
        for request in (by_chat, by_items)
    )
    assert shown == same
    assert json.loads(shown[0]["tool_calls"][0]["function"]["arguments"]) == {"input": TEXT}


def test_a_call_of_the_history_without_what_was_called_is_named() -> None:
    for kind in ("custom", "function"):
        history = [{"role": "assistant", "tool_calls": [{"id": "1", "type": kind}]}]
        with pytest.raises(InvalidRequestError) as caught:
            render_messages(chat(messages=history).request.messages, lambda *_: "")
        assert caught.value.param == f"messages[0].tool_calls[0].{kind}"
