"""The functions of OpenAI's chat completions from before there were tools, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from snapllm._readers import fold_chat
from snapllm.conversation import render_messages
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ChatEvent, Finish, TextDelta, ToolCallDelta, ToolCallStart
from snapllm.protocol import openai

USER = {"role": "user", "content": "Hi"}
LOOK = {"name": "look", "parameters": {"type": "object"}}
HEAR = {"name": "hear"}
TOOLS = [{"type": "function", "function": each} for each in (LOOK, HEAR)]
LARGE = {str(i): i for i in range(20_000)}
CALL = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}


def parse(**fields: Any) -> openai.Parsed:
    return openai.parse_chat(json.dumps({"model": "m", "messages": [USER]} | fields).encode())


def rendered(*messages: dict[str, Any]) -> Any:
    request = parse(messages=[USER, *messages]).request
    return json.loads(render_messages(request.messages, lambda *_: ""))[1:]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        ({"function_call": "auto"}, {"tool_choice": "auto"}),
        ({"function_call": "none"}, {"tool_choice": "none"}),
        (
            {"function_call": {"name": "look"}},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
    ],
)
def test_functions_are_tools_of_which_one_is_called_at_most(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    of_functions = parse(functions=[LOOK, HEAR], **old)
    assert of_functions.request == parse(tools=TOOLS, parallel_tool_calls=False, **new).request
    assert of_functions.has_functions


def test_what_a_function_gave_answers_the_last_call_of_its_name() -> None:
    others = CALL | {"function_call": {"name": "hear", "arguments": '{"a": 1}'}}
    gave = [{"role": "function", "name": name, "content": name} for name in ("look", "hear")]
    first, _, last, *results = rendered(CALL, gave[0], CALL, others, gave[1], gave[0])[0:6]
    assert first["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    ids = [message["tool_calls"][0]["id"] for message in (first, last, results[0])]
    assert len(set(ids)) == 3
    assert [result["tool_call_id"] for result in results[1:]] == [ids[2], ids[1]]
    assert [result["role"] for result in results[1:]] == ["tool", "tool"]
    assert [result["content"] for result in results[1:]] == ["hear", "look"]


def test_what_a_function_gave_may_be_nothing_and_without_a_call() -> None:
    [result] = rendered({"role": "function", "name": "look", "content": None})
    assert (result["role"], result["content"], result["tool_call_id"]) == ("tool", "", "")


def test_nothing_changes_for_those_who_say_that_they_have_no_functions() -> None:
    assert parse(functions=None, function_call=None, tools=TOOLS) == parse(tools=TOOLS)
    message = {"role": "assistant", "content": "Hi", "function_call": None, "tool_calls": None}
    assert rendered(message) == [{"role": "assistant", "content": "Hi"}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [LOOK], "tools": TOOLS}, "functions"),
        ({"functions": [LOOK], "tool_choice": "auto"}, "tool_choice"),
        ({"function_call": "auto", "tools": TOOLS}, "function_call"),
        ({"function_call": {"name": "look"}}, "function_call.name"),
        ({"functions": [HEAR], "function_call": {"name": "look"}}, "function_call.name"),
        ({"functions": [LOOK], "function_call": "required"}, "function_call"),
        ({"functions": [LOOK], "function_call": {}}, "function_call.name"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"functions": [LOOK, LOOK]}, "functions[1].name"),
        (
            {"functions": [{"name": "x", "parameters": {"type": "array"}}]},
            "functions[0].parameters.type",
        ),
        ({"messages": [USER, {"role": "function", "content": "x"}]}, "messages[1].name"),
        ({"messages": [CALL | {"role": "user"}]}, "messages[0].function_call"),
        (
            {"messages": [CALL | {"function_call": {"name": "look", "arguments": LARGE}}]},
            "messages[0].function_call.arguments",
        ),
        (
            {"messages": [CALL | {"tool_calls": [{"function": {"name": "x"}}]}]},
            "messages[0].function_call",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("text", ["", "Let me see."])
def test_a_streamed_call_is_that_of_the_whole_answer(text: str) -> None:
    events: list[ChatEvent] = [TextDelta(text)] if text else []
    events += [
        ToolCallStart(0, "call_1", "look"),
        ToolCallDelta(0, '{"at"'),
        ToolCallDelta(0, ": 1}"),
        Finish(finish_reason="tool_calls"),
    ]
    encoder = openai.Encoder("m", has_functions=True)
    body = encoder.response([fold_chat(events)])
    whole = ChatCompletion.model_validate_json(body).choices[0]
    assert whole.finish_reason == "function_call"
    assert whole.message.content == (text or None)
    assert b"tool_calls" not in body
    chunks = [chunk for event in events for chunk in encoder.chunks(0, event)]
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert deltas[-4:-1] == [
        {"function_call": {"name": "look", "arguments": ""}},
        {"function_call": {"arguments": '{"at"'}},
        {"function_call": {"arguments": ": 1}"}},
    ]
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in [encoder.first_chunk(0), *chunks]:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(chunk))
    streamed = state.get_final_completion().choices[0]
    assert streamed.finish_reason == "function_call"
    assert whole.message.function_call is not None and streamed.message.function_call is not None
    assert streamed.message.function_call.to_dict() == whole.message.function_call.to_dict()


def test_an_answer_without_a_call_is_as_any_other() -> None:
    events: list[ChatEvent] = [TextDelta("Hello."), Finish(finish_reason="stop")]
    body = json.loads(openai.Encoder("m", has_functions=True).response([fold_chat(events)]))
    assert body["choices"][0]["finish_reason"] == "stop"
    assert "function_call" not in body["choices"][0]["message"]
