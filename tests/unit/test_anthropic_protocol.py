"""Anthropic's Messages API, read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic_bodies import HELLO, LOOK, body, parse

from snapllm.errors import InvalidRequestError
from snapllm.outputs import ChatResult, Finish, ReasoningDelta, TextDelta, ToolCall, Usage
from snapllm.protocol import anthropic
from snapllm.protocol.anthropic_answers import Answer, BlockStream, count_object, signature


def test_a_thinking_budget_is_bounded_only_where_tokens_are_generated() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    counted = anthropic.parse_count(
        json.dumps({"model": "m", "messages": HELLO, "thinking": thinking}).encode()
    )
    assert counted.request.thinking
    with pytest.raises(InvalidRequestError) as caught:
        parse(thinking=thinking)
    assert caught.value.param == "thinking.budget_tokens"


def test_thinking_of_an_unknown_type_is_adaptive() -> None:
    assert parse(thinking={"type": "between_tools"}).request.thinking
    assert not parse(thinking={"type": "disabled"}).request.thinking


FORM: dict[str, Any] = {"type": "json_schema", "schema": {}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
        ({"tool_choice": {"type": "any"}, "tools": [LOOK]}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool", "name": "look"}, "tools": [LOOK]}, "tool_choice.type"),
        ({"output_config": {"format": FORM}}, "output_config.format"),
        ({"output_format": FORM}, "output_format"),
    ],
)
def test_no_form_is_taken_for_an_answer_of_no_tokens(fields: dict[str, Any], param: str) -> None:
    assert parse(max_tokens=2000, **fields).request.max_tokens == 2000
    with pytest.raises(InvalidRequestError) as caught:
        parse(max_tokens=0, **fields)
    assert caught.value.param == param


def test_the_answer_goes_on_from_the_assistants_text_at_the_end() -> None:
    begun = {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}
    request = parse(messages=[*HELLO, begun]).request
    assert request.continue_final_message
    assert [message.role for message in request.messages] == ["user", "assistant"]
    assert not parse(messages=[*HELLO, begun, *HELLO]).request.continue_final_message


def test_an_empty_message_of_the_assistant_at_the_end_begins_nothing() -> None:
    request = parse(messages=[*HELLO, {"role": "assistant", "content": ""}]).request
    assert not request.continue_final_message
    assert [message.role for message in request.messages] == ["user"]


def test_a_call_that_must_be_made_is_another_turn() -> None:
    said = {"role": "assistant", "content": "It is noted."}
    fields = {"tool_choice": {"type": "any"}, "tools": [LOOK]}
    request = parse(messages=[*HELLO, said], **fields).request
    assert not request.continue_final_message
    assert request.messages[-1].content == "It is noted."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking": {"type": "adaptive"}}, "thinking.type"),
        ({"output_config": {"format": FORM}}, "output_config.format"),
    ],
)
def test_a_begun_answer_has_no_other_form(fields: dict[str, Any], param: str) -> None:
    begun = {"role": "assistant", "content": "It is"}
    with pytest.raises(InvalidRequestError) as caught:
        parse(messages=[*HELLO, begun], **fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
        {"type": "thinking", "thinking": "Hm", "signature": "x"},
    ],
)
def test_a_call_or_a_thought_is_no_beginning(block: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(messages=[*HELLO, {"role": "assistant", "content": [block]}])
    assert caught.value.param == "messages[1].content"


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ("It is", {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("It is", {"output_config": {"format": FORM}}),
        ([{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}], {}),
        ([{"type": "thinking", "thinking": "Hm", "signature": "x"}], {}),
    ],
)
def test_tokens_are_counted_whatever_a_conversation_ends_with(
    content: Any, fields: dict[str, Any]
) -> None:
    messages = [*HELLO, {"role": "assistant", "content": content}]
    counted = anthropic.parse_count(body(messages=messages, **fields)).request
    assert [message.role for message in counted.messages] == ["user", "assistant"]
    assert not counted.continue_final_message


def test_turns_of_the_assistant_that_follow_each_other_are_one() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    turns = [
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm"}]},
        {"role": "assistant", "content": "One"},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}, call]},
    ]
    [_, turn, _] = parse(messages=[*HELLO, *turns, *HELLO]).request.messages
    assert (turn.role, turn.content, turn.reasoning_content) == ("assistant", "One\ntwo", "Hm")
    assert turn.tool_calls and len(turn.tool_calls) == 1
    cleared = {"role": "system", "content": "x", "clear_at": "next_user_message"}
    between = parse(messages=[*HELLO, turns[1], cleared, turns[2], *HELLO]).request.messages
    assert [message.role for message in between] == ["user", "assistant", "user"]
    begun = parse(messages=[*HELLO, *turns[1:2], *turns[1:2]]).request
    assert begun.continue_final_message and begun.messages[-1].content == "One\nOne"


def test_a_system_message_is_cleared_by_the_next_of_the_user() -> None:
    reminder = {"role": "system", "content": "Be short", "clear_at": "next_user_message"}

    def shown(*messages: dict[str, Any]) -> str:
        return json.dumps([str(m.content) for m in parse(messages=list(messages)).request.messages])

    assert "Be short" in shown(*HELLO, reminder)
    assert "Be short" not in shown(*HELLO, reminder, *HELLO)
    assert "Be short" in shown(*HELLO, reminder | {"clear_at": None}, *HELLO)
    effort = {"role": "system", "output_config": {"effort": "low"}}
    assert len(parse(messages=[*HELLO, effort]).request.messages) == 1
    with pytest.raises(InvalidRequestError) as caught:
        parse(messages=[*HELLO, {"role": "system"}])
    assert caught.value.param == "messages[1].content"


def test_an_answer_of_nothing_has_a_block() -> None:
    """Whoever reads `content[0].text` finds it; nothing was asked for with no tokens."""
    for max_tokens, expected in ((20, [{"type": "text", "text": ""}]), (0, [])):
        answer = Answer(parse(max_tokens=max_tokens))
        assert json.loads(answer.message(ChatResult(content="")))["content"] == expected
        blocks = BlockStream(is_answered=max_tokens > 0)
        sent = blocks.events(Finish(finish_reason="stop")).decode()
        assert sent.count("event: content_block_start") == len(expected)
        assert sent.count("event: content_block_stop") == len(expected)


def test_omitted_thoughts_are_signed_and_empty() -> None:
    assert parse(thinking={"type": "adaptive", "display": "omitted"}).omits_thinking
    assert not parse(thinking={"type": "adaptive"}).omits_thinking
    answer = Answer(parse(thinking={"type": "adaptive", "display": "omitted"}))
    content = json.loads(answer.message(ChatResult(content="Yes", reasoning="Hm")))["content"]
    block = {"type": "thinking", "thinking": "", "signature": signature("Hm", is_omitted=True)}
    assert content == [block, {"type": "text", "text": "Yes"}]
    blocks = BlockStream(omits_thinking=True)
    chat = [
        ReasoningDelta("H"),
        ReasoningDelta("m"),
        TextDelta("Yes"),
        Finish(finish_reason="stop"),
    ]
    sent = b"".join(blocks.events(event) for event in chat).decode()
    events = [json.loads(line[6:]) for line in sent.splitlines() if line.startswith("data: ")]
    assert [event.get("delta", event)["type"] for event in events] == [
        *("content_block_start", "signature_delta", "content_block_stop"),
        *("content_block_start", "text_delta", "content_block_stop"),
    ]
    assert events[1]["delta"]["signature"] == block["signature"]
    # The next request brings them back, and the model has them again.
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": "Go on"},
    ]
    assert parse(messages=messages).request.messages[1].reasoning_content == "Hm"


@pytest.mark.parametrize(
    ("num_generated_tokens", "reason"),
    [(20, "max_tokens"), (19, "model_context_window_exceeded")],
)
def test_the_end_of_the_context_is_told_from_that_of_the_answer(
    num_generated_tokens: int, reason: str
) -> None:
    usage = Usage(num_generated_tokens=num_generated_tokens)
    answer = Answer(parse(max_tokens=20))
    whole = answer.message(ChatResult(content="So", finish_reason="length", usage=usage))
    assert json.loads(whole)["stop_reason"] == reason
    streamed = answer.end(Finish(finish_reason="length", usage=usage))
    assert f'"stop_reason":"{reason}"'.encode() in streamed


def test_edits_of_the_context_that_are_allowed_are_reported_as_none() -> None:
    allowed = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    none_made = {"applied_edits": []}
    answer = Answer(parse(context_management=allowed))
    assert json.loads(answer.message(ChatResult(content="")))["context_management"] == none_made
    end = answer.end(Finish(finish_reason="stop")).decode()
    assert json.loads(end.splitlines()[1][6:])["context_management"] == none_made
    assert "context_management" not in json.loads(Answer(parse()).message(ChatResult(content="")))
    counted = json.loads(count_object(parse(context_management=allowed), 7))
    assert counted == {"input_tokens": 7, "context_management": {"original_input_tokens": 7}}


@pytest.mark.parametrize(
    "field", [{"container": "c1"}, {"mcp_servers": [{}]}, {"compaction": {"type": "summarize"}}]
)
def test_what_an_answer_cannot_do_without_is_refused(field: dict[str, Any]) -> None:
    [param] = field
    parse(**{param: None})
    with pytest.raises(InvalidRequestError) as caught:
        parse(**field)
    assert caught.value.param == param


def test_an_image_of_the_files_api_is_refused_as_such() -> None:
    image = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
    with pytest.raises(InvalidRequestError, match="file's id is not supported") as caught:
        parse(messages=[{"role": "user", "content": [image]}])
    assert caught.value.param == "messages[0].content[0].source"


def test_a_conversation_that_is_to_be_summarised_is_counted_as_it_is() -> None:
    counted = anthropic.parse_count(body(compaction={"type": "summarize"})).request
    assert counted.messages == parse().request.messages
    with pytest.raises(InvalidRequestError):
        anthropic.parse_count(body(mcp_servers=[{}]))


@pytest.mark.parametrize(("arguments", "shown"), [("{", {}), ("", {}), ('{"a":1}', {"a": 1})])
def test_a_tool_call_that_was_cut_off_has_no_input(arguments: str, shown: Any) -> None:
    call = ToolCall("1", "look", arguments)
    usage = Usage(num_generated_tokens=20)
    result = ChatResult(content="", tool_calls=[call], finish_reason="length", usage=usage)
    answer = json.loads(Answer(parse(max_tokens=20)).message(result))
    assert answer["stop_reason"] == "max_tokens"
    assert answer["content"][0]["input"] == shown


def test_an_empty_schema_asks_for_any_json() -> None:
    config = {"format": {"type": "json_schema", "schema": {}}}
    assert json.loads(parse(output_config=config).request.json_schema)["type"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"output_config": {"effort": "zzz"}}, "output_config.effort"),
        ({"output_config": {"effort": ""}}, "output_config.effort"),
        ({"cache_control": {"type": "bogus"}}, "cache_control.type"),
        ({"cache_control": {}}, "cache_control.type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": "x"}]}]},
            "messages[0].content[0].source",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": "x"}]}]},
            "messages[0].content[0].source",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("content", ["", [], [{"type": "text", "text": ""}]])
def test_a_message_of_the_user_without_content_is_named(content: Any) -> None:
    silent = {"role": "assistant", "content": content}
    assert len(parse(messages=[*HELLO, silent, *HELLO]).request.messages) == 3
    with pytest.raises(InvalidRequestError, match="must not be empty") as caught:
        parse(messages=[*HELLO, silent, {"role": "user", "content": content}])
    assert caught.value.param == "messages[2].content"


@pytest.mark.parametrize(
    "arguments",
    [
        r'{"a": "\ud800"}',
        '{"a": 1e400}',
        '{"a": %s}' % ("9" * 6000),
        '{"a": [1, "x"] , "a": 2}',
    ],
)
def test_a_call_has_its_arguments_as_they_were_written(arguments: str) -> None:
    result = ChatResult(content="", tool_calls=[ToolCall("call_1", "look", arguments)])
    assert b'"input":' + arguments.encode() in Answer(parse()).message(result)


@pytest.mark.parametrize("arguments", ['{"a": [1,', '{"a": ' + "[" * 5000, "[1]", "", "x"])
def test_a_call_without_an_object_has_an_empty_one(arguments: str) -> None:
    result = ChatResult(content="", tool_calls=[ToolCall("call_1", "look", arguments)])
    assert b'"input":{}' in Answer(parse()).message(result)
