"""OpenAI's chat completions, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from snapllm._readers import fold_chat
from snapllm.conversation import render_messages
from snapllm.errors import InvalidRequestError
from snapllm.outputs import (
    ChatEvent,
    ChatResult,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    Timings,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from snapllm.protocol import openai

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def parse(**fields: Any) -> openai.Parsed:
    return openai.parse_chat(json.dumps({"model": "m", "messages": MESSAGES} | fields).encode())


def test_unset_and_null_fields_mean_the_defaults() -> None:
    plain = parse()
    nulls = parse(temperature=None, stop=None, tools=None, n=None, stream=None, max_tokens=None)
    assert plain == nulls
    assert plain.request.sampling.temperature == pytest.approx(0.7)


def test_max_completion_tokens_wins_over_the_old_name() -> None:
    assert parse(max_tokens=5, max_completion_tokens=7).request.max_tokens == 7


def test_a_refusal_in_the_history_is_what_the_assistant_said() -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": None, "refusal": "I cannot."}]
    rendered = render_messages(parse(messages=messages).request.messages, lambda *_: "")
    assert json.loads(rendered)[1] == {"role": "assistant", "content": "I cannot."}


def test_unknown_fields_are_ignored() -> None:
    assert parse(user="me", store=True, metadata={"a": 1}, service_tier="auto") == parse()


def test_the_json_schema_reaches_the_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert json.loads(parse(response_format=form).request.json_schema) == schema
    assert json.loads(parse(response_format={"type": "json_object"}).request.json_schema)


@pytest.mark.parametrize("named", [{"schema": {}}, {"name": "x"}, {"schema": None}])
def test_an_empty_json_schema_asks_for_any_json(named: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x"} | named}
    assert json.loads(parse(response_format=form).request.json_schema)["type"]


@pytest.mark.parametrize(("mode", "expected"), [({}, "auto"), ({"mode": "required"}, "required")])
def test_only_the_allowed_tools_are_offered(mode: dict[str, str], expected: str) -> None:
    other = {"type": "function", "function": {"name": "hear"}}
    allowed = {"tools": [{"type": "function", "function": {"name": "look"}}], **mode}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    request = parse(tools=[other, TOOL], tool_choice=choice).request
    assert [tool.function.name for tool in request.tools] == ["look"]
    assert request.tool_choice == expected


def test_thinking_follows_the_effort() -> None:
    thinking = {
        effort: parse(reasoning_effort=effort).request.thinking
        for effort in ("none", "minimal", "low", "medium", "high", "xhigh")
    }
    assert [effort for effort, thinks in thinking.items() if not thinks] == ["none", "minimal"]


def image(detail: str) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": "data:,", "detail": detail}}
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize("detail", ["auto", "low", "high", "original"])
def test_an_image_may_come_with_a_detail(detail: str) -> None:
    [message] = parse(**image(detail)).request.messages
    assert isinstance(message.content, list)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "user"}, 5]}, "messages[1]"),
        (image("bogus"), "messages[0].content[0].image_url.detail"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"5": 1, "7": 101}}, "logit_bias.7"),
        ({"logit_bias": {"5": "1"}}, "logit_bias.5"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
        ({"reasoning_effort": "zzz"}, "reasoning_effort"),
        ({"reasoning_effort": ""}, "reasoning_effort"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
    ],
)
def test_a_field_that_does_not_fit_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": "m"}']
)
def test_a_malformed_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        openai.parse_chat(body)


USAGE = Usage(
    num_prompt_tokens=10, num_cached_tokens=4, num_generated_tokens=5, num_reasoning_tokens=2
)
TIMINGS = Timings(queue_ms=1, prefill_ms=9, decode_ms=40)


def test_the_answer_has_the_specifications_fields() -> None:
    result = ChatResult(content="Hello", usage=USAGE, timings=TIMINGS)
    body = json.loads(openai.Encoder("m").response([result]))
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    [choice] = body["choices"]
    assert choice["message"]["content"] == "Hello"
    assert choice["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 2,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "tokens_per_second": 100.0,
    }


def test_log_probabilities_that_were_asked_for_are_there_where_nothing_was_said() -> None:
    encoder = openai.Encoder("m", has_logprobs=True)
    [choice] = json.loads(encoder.response([ChatResult(content="")]))["choices"]
    assert choice["logprobs"] == {"content": [], "refusal": None}
    [choice] = json.loads(openai.Encoder("m").response([ChatResult(content="")]))["choices"]
    assert choice["logprobs"] is None


def test_tool_calls_leave_the_content_empty() -> None:
    call = ToolCall("call_1", "look", '{"at":1}')
    result = ChatResult(content="", tool_calls=[call], finish_reason="tool_calls")
    [choice] = json.loads(openai.Encoder("m").response([result]))["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
    ]


def test_streamed_events_become_chunks_of_one_id() -> None:
    encoder = openai.Encoder("m")
    events = [
        ReasoningDelta("hm"),
        TextDelta("He"),
        ToolCallStart(0, "call_1", "look"),
        ToolCallDelta(0, "{}"),
        Finish(finish_reason="tool_calls", usage=USAGE, timings=TIMINGS),
    ]
    chunks = [json.loads(encoder.first_chunk(0))]
    chunks += [json.loads(chunk) for event in events for chunk in encoder.chunks(0, event)]
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant"}
    assert deltas[1:3] == [{"reasoning_content": "hm"}, {"content": "He"}]
    assert deltas[3]["tool_calls"][0]["function"] == {"name": "look", "arguments": ""}
    assert deltas[4]["tool_calls"][0]["function"] == {"arguments": "{}"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_chunks_before_the_usage_say_that_they_have_none() -> None:
    for include_usage in (False, True):
        encoder = openai.Encoder("m", include_usage=include_usage)
        chunks = [encoder.first_chunk(0), *encoder.chunks(0, TextDelta("He"))]
        assert ['"usage":null' in chunk.decode() for chunk in chunks] == [include_usage] * 2


def test_each_chunk_says_how_many_tokens_were_counted_before_it() -> None:
    encoder = openai.Encoder("m", include_usage=True)
    chunks = []
    for number, event in enumerate(
        [TextDelta("He"), TextDelta("llo"), Finish(finish_reason="stop")]
    ):
        encoder.count(Usage(num_prompt_tokens=5, num_generated_tokens=number))
        chunks += [json.loads(chunk) for chunk in encoder.chunks(0, event)]
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 2]
    assert (chunks[2]["usage"]["prompt_tokens"], chunks[2]["usage"]["total_tokens"]) == (5, 7)
    assert "tokens_per_second" not in chunks[2]["usage"]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        *({"content": "He"}, {"content": "llo"}, {})
    ]


@pytest.mark.parametrize(
    "events",
    [
        [],
        [TextDelta("He"), TextDelta("llo")],
        [ReasoningDelta("Hm")],
        [ToolCallStart(0, "1", "look"), ToolCallDelta(0, "{}")],
        [TextDelta("Let me."), ToolCallStart(0, "1", "look"), ToolCallDelta(0, "{}")],
    ],
)
def test_a_streamed_message_is_that_of_the_whole_answer(events: list[ChatEvent]) -> None:
    reason: FinishReason = "tool_calls" if len(events) > 1 else "stop"
    events = [*events, Finish(finish_reason=reason)]
    encoder = openai.Encoder("m")
    whole = ChatCompletion.model_validate_json(encoder.response([fold_chat(events)]))
    chunks = [encoder.first_chunk(0)]
    chunks += [chunk for event in events for chunk in encoder.chunks(0, event)]
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(chunk))
    streamed = state.get_final_completion().choices[0].message
    assert streamed.content == whole.choices[0].message.content
    streamed_calls, calls = (
        [call.function.to_dict() for call in message.tool_calls or []]
        for message in (streamed, whole.choices[0].message)
    )
    for call in streamed_calls:
        call.pop("parsed_arguments", None)
    assert streamed_calls == calls


@pytest.mark.parametrize(
    ("message", "field", "goes_on"),
    [
        ({}, {}, False),
        ({"prefix": True}, {}, True),
        ({}, {"continue_final_message": True}, True),
        ({"prefix": True}, {"continue_final_message": False}, False),
    ],
)
def test_an_answer_goes_on_from_the_last_one_where_that_is_said(
    message: dict[str, Any], field: dict[str, Any], goes_on: bool
) -> None:
    said = {"role": "assistant", "content": "It is", **message}
    assert parse(messages=[*MESSAGES, said], **field).request.continue_final_message is goes_on
