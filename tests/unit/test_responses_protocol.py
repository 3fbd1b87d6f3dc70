"""OpenAI's Responses API, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response

from snapllm.conversation import render_messages
from snapllm.errors import InvalidRequestError
from snapllm.outputs import (
    ChatEvent,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from snapllm.protocol import responses
from snapllm.protocol.carried_reasoning import decode_reasoning, encode_reasoning
from snapllm.protocol.error_codes import ApiError
from snapllm.protocol.responses_answers import ResponseStream
from snapllm.protocol.responses_items import input_to_keep
from snapllm.protocol.responses_types import DEFAULT_MAX_OUTPUT_TOKENS, MAX_ITEMS

TOOLS = [{"type": "function", "name": name, "strict": True} for name in ("look", "hear")]
CUT = Finish(finish_reason="length", usage=Usage(num_generated_tokens=5, num_reasoning_tokens=3))


def parse(**fields: Any) -> responses.Parsed:
    return responses.parse(json.dumps({"model": "m", "input": "Hi"} | fields).encode())


def answer(*events: ChatEvent, **fields: Any) -> dict[str, Any]:
    parsed = parse(**fields)
    builder = ResponseStream(parsed.wire, parsed.tools)
    for event in events:
        list(builder.events(event))
    return builder.response


def test_an_answer_has_a_bound_by_default_and_tells_the_one_it_was_given() -> None:
    assert parse()[0].max_tokens == DEFAULT_MAX_OUTPUT_TOKENS
    assert answer()["max_output_tokens"] is None
    body = b'{"model": "m", "input": "x"}'
    assert responses.parse(body, default_max_tokens=256).request.max_tokens == 4096
    assert responses.parse(body, default_max_tokens=9000).request.max_tokens == 9000
    assert parse(max_output_tokens=5)[0].max_tokens == 5
    assert answer(max_output_tokens=5)["max_output_tokens"] == 5


def test_an_answer_tells_how_it_was_sampled() -> None:
    for given in ({}, {"temperature": 0, "top_p": 0.5}):
        sampling, told = parse(**given).request.sampling, answer(**given)
        assert told["temperature"] == sampling.temperature
        assert told["top_p"] == sampling.top_p


def test_an_answer_tells_when_it_was_completed() -> None:
    done = Finish(finish_reason="stop")
    assert answer(TextDelta("Hi"))["completed_at"] is None
    assert answer(TextDelta("Hi"), CUT)["completed_at"] is None
    completed = answer(TextDelta("Hi"), done)
    assert completed["completed_at"] >= completed["created_at"]


def test_an_answer_is_what_the_clients_type_says() -> None:
    choice = {"type": "allowed_tools", "tools": [{"type": "function", "name": "look"}]}
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    asked: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "text": {"format": form}}
    for fields in ({}, asked):
        told = answer(TextDelta("Hi"), CUT, **fields)
        Response.model_validate(told, strict=True)
        assert told.keys() - Response.model_fields.keys() == {"store"}
    assert told["tool_choice"] == choice | {"mode": "auto"}
    assert told["text"] == {"format": form}


def test_an_answer_repeats_what_was_asked_for() -> None:
    asked = {
        "truncation": "auto",
        "user": "me",
        "service_tier": "default",
        "safety_identifier": "someone",
        "prompt_cache_key": "mine",
        "max_tool_calls": 3,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "background": False,
    }
    given = answer(**asked)
    assert {name: given[name] for name in asked} == asked
    silent = dict.fromkeys(asked) | {
        "truncation": "disabled",
        "service_tier": "default",
        "text": {"format": {"type": "text"}},
        "background": False,
    }
    for given in (answer(), answer(service_tier="flex")):
        assert {name: given[name] for name in asked} == silent


@pytest.mark.parametrize(
    "events",
    [
        [ReasoningDelta("Hm")],
        [TextDelta("Hel")],
        [ToolCallStart(0, "1", "look"), ToolCallDelta(0, "{")],
    ],
)
def test_an_item_that_was_cut_off_is_incomplete(events: list[ChatEvent]) -> None:
    cut = answer(TextDelta("Well. "), ToolCallStart(0, "0", "look"), *events, CUT)
    assert cut["status"] == "incomplete"
    statuses = [item["status"] for item in cut["output"]]
    assert statuses == ["completed"] * (len(statuses) - 1) + ["incomplete"]


def test_a_stream_that_fails_ends_with_events_of_its_protocol() -> None:
    stream = ResponseStream(parse().wire)
    begun = [*stream.start(), *stream.events(TextDelta("Hel"))]
    error, failed = stream.failed(ApiError("closed", "the server ends"))
    assert error == {
        "type": "error",
        "sequence_number": len(begun),
        "code": "closed",
        "message": "the server ends",
        "param": None,
    }
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", len(begun) + 1)
    assert failed["response"]["status"] == "failed"
    # Of codes that generated clients know.
    assert failed["response"]["error"] == {"code": "server_error", "message": "the server ends"}
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert failed["response"]["output"][0]["content"][0]["text"] == "Hel"


def test_the_template_is_told_the_effort_as_that_of_a_chat() -> None:
    for effort, thinks in (("high", True), ("none", False)):
        request = parse(reasoning={"effort": effort}).request
        assert request.template_kwargs == {"reasoning_effort": effort}
        assert request.thinking == thinks
    assert parse().request.template_kwargs == {}


def test_the_summary_may_be_asked_for_by_its_old_name() -> None:
    parsed = parse(reasoning={"effort": "low", "generate_summary": "auto"})
    stream = ResponseStream(parsed.wire, parsed.tools)
    kinds = [event["type"] for event in stream.events(ReasoningDelta("Hm"))]
    assert "response.reasoning_summary_text.delta" in kinds


def test_a_conversation_has_so_many_items_and_no_more() -> None:
    items: list[dict[str, Any]] = [{"role": "user", "content": "x"}]
    with pytest.raises(InvalidRequestError) as caught:
        parse(input=items + [{"type": "reasoning"}] * MAX_ITEMS)
    assert caught.value.param == "input"
    for metadata in ({"k": "x" * 513}, {"k" * 65: "x"}, {str(i): "x" for i in range(17)}):
        with pytest.raises(InvalidRequestError) as caught:
            parse(metadata=metadata)
        assert (caught.value.param or "").startswith("metadata")


def test_reasoning_tokens_are_counted() -> None:
    usage = answer(ReasoningDelta("Hm"), CUT)["usage"]
    assert usage["output_tokens_details"] == {"reasoning_tokens": 3}


def test_reasoning_is_given_to_carry_where_that_is_asked_for() -> None:
    text = "It is 7 \u00d7 6."
    [item] = answer(ReasoningDelta(text), CUT, include=["reasoning.encrypted_content"])["output"]
    carried = item["encrypted_content"]
    assert decode_reasoning(carried) == text
    assert "encrypted_content" not in answer(ReasoningDelta(text), CUT)["output"][0]
    parsed = parse(include=["reasoning.encrypted_content"])
    stream = ResponseStream(parsed.wire, parsed.tools)
    [added] = [
        dict(event["item"])
        for event in stream.events(ReasoningDelta(text))
        if event["type"] == "response.output_item.added"
    ]
    # A client that keeps what an item began with, and sends it back with what it has of the text.
    summary = [{"type": "summary_text", "text": text}]
    [turn] = parse(input=[added | {"summary": summary}])[0].messages
    assert (turn.role, turn.reasoning_content) == ("assistant", text)


@pytest.mark.parametrize(
    "kind",
    ["web_search_call", "mcp_list_tools", "mcp_call", "tool_search_output", "tool_search_call"],
)
def test_what_tools_of_other_servers_left_behind_is_passed_over(kind: str) -> None:
    item = {"type": kind, "id": "x_1", "status": "completed", "action": {"query": "x"}}
    if kind == "tool_search_call":
        item["arguments"] = {"query": "x"}
    said = {"role": "assistant", "content": "It is so."}
    messages = parse(input=[{"role": "user", "content": "x"}, item, said])[0].messages
    assert [(turn.role, turn.content) for turn in messages] == [
        ("user", "x"),
        ("assistant", "It is so."),
    ]
    parsed = parse(input=[{"role": "user", "content": "x"}, {"type": kind}, said])
    assert [json.loads(kept.data)["type"] for kept in input_to_keep(parsed.conversation)] == [
        *("message", kind, "message")
    ]
    with pytest.raises(InvalidRequestError, match="'local_shell_call' are not supported"):
        parse(input=[item | {"type": "local_shell_call"}])


@pytest.mark.parametrize("text", ["", "Hm.", "\u00e9\U0001f600", "x" * 10_000])
def test_carried_reasoning_is_read_only_as_it_was_written(text: str) -> None:
    carried = encode_reasoning(text)
    assert decode_reasoning(carried) == text
    assert carried.isascii() and (not text or text not in carried)
    version, _, rest = carried.partition(".")
    for other in (rest, f"{version}2.{rest}", carried[:-5], carried + "AAAA", f"{version}.%", "x"):
        assert decode_reasoning(other) == ""


def test_the_response_says_what_was_asked() -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    named = [{"type": "function", "name": "look"}]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": named}
    system = [{"type": "message", "role": "developer", "content": "Be brief."}]
    said = answer(text={"format": form}, tools=TOOLS, tool_choice=allowed, instructions=system)
    assert said["text"] == {"format": form}
    assert [tool["strict"] for tool in said["tools"]] == [True, True]
    assert said["tool_choice"] == allowed
    assert said["instructions"] == system
    assert answer()["text"] == {"format": {"type": "text"}}


@pytest.mark.parametrize(("mode", "expected"), [({}, "auto"), ({"mode": "required"}, "required")])
def test_only_the_allowed_tools_are_offered(mode: dict[str, str], expected: str) -> None:
    names = [{"type": "function", "name": "hear"}]
    request, *_ = parse(tools=TOOLS, tool_choice={"type": "allowed_tools", "tools": names, **mode})
    assert [tool.function.name for tool in request.tools] == ["hear"]
    assert request.tool_choice == expected


def test_instructions_may_be_items() -> None:
    items = [{"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]}]
    messages = parse(instructions=items)[0].messages
    rendered = json.loads(render_messages(messages, lambda part, where: ""))
    assert [(m["role"], m["content"]) for m in rendered] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]


def test_instructions_and_a_developers_first_item_are_one_turn_of_the_system() -> None:
    texts = [{"type": "input_text", "text": text} for text in ("Be kind.", "Be just.")]
    developer = {"role": "developer", "content": texts}
    user = {"role": "user", "content": "Hi"}
    later = {"role": "developer", "content": "Be quick."}
    messages = parse(instructions="Be brief.", input=[developer, user, later])[0].messages
    rendered = json.loads(render_messages(messages, lambda part, where: ""))
    assert [(m["role"], m["content"]) for m in rendered] == [
        ("system", "Be brief.\n\nBe kind.\nBe just."),
        ("user", "Hi"),
        ("system", "Be quick."),
    ]


def test_refusals_and_broken_arguments_of_the_history_are_shown_to_the_model() -> None:
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]}
    call = {"type": "function_call", "call_id": "1", "name": "look", "arguments": '{"at": '}
    messages = parse(input=[refusal, call])[0].messages
    rendered = json.loads(render_messages(messages, lambda part, where: ""))
    assert rendered[0]["content"] == "I cannot."
    arguments = rendered[0]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"arguments": '{"at": '}


@pytest.mark.parametrize("field", ["call_id", "output"])
def test_an_output_of_a_call_is_whole(field: str) -> None:
    output = {"type": "function_call_output", "call_id": "1", "output": "22"}
    del output[field]
    with pytest.raises(InvalidRequestError) as caught:
        parse(input=[output])
    assert caught.value.param == f"input[0].{field}"


@pytest.mark.parametrize("schema", [{"schema": {}}, {"schema": None}, {}])
def test_an_empty_schema_or_none_asks_for_any_json(schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "name": "x", **schema}
    assert json.loads(parse(text={"format": form})[0].json_schema)["type"]


def content(part: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [part]}], "instructions": "Be brief."}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (content({"type": "odd"}), "input[0].content[0].type"),
        (content({"type": "input_text"}), "input[0].content[0].text"),
        (content({"type": "input_text", "text": 5}), "input[0].content[0].text"),
        (content({"type": "input_image"}), "input[0].content[0].image_url"),
        (
            content({"type": "input_image", "image_url": None, "file_id": "file-1"}),
            "input[0].content[0].file_id",
        ),
        (
            content({"type": "input_image", "image_url": "data:,", "detail": "bogus"}),
            "input[0].content[0].detail",
        ),
        ({"reasoning": {"effort": "zzz"}}, "reasoning.effort"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.name"),
    ],
)
def test_a_field_that_does_not_fit_is_named_as_the_client_wrote_it(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    assert caught.value.param == param
