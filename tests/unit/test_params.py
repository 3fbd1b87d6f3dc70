"""Options of the Python API: checked, and wrong ones named."""

from __future__ import annotations

from typing import Any

import pytest

from snapllm._requests import chat_request, completion_request, embedding_request
from snapllm.errors import InvalidRequestError
from snapllm.params import UNLIMITED


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"num_logprobs": 21}, "num_logprobs"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop[0]"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"logit_bias": {2**40: 1.0}}, "logit_bias[0][0]"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        completion_request("m", "x", options)
    assert caught.value.param == param
    assert param in str(caught.value)


@pytest.mark.parametrize("tokens", [[1, 2**40], [-1], [1.5], ["a"]])
def test_what_is_no_token_is_refused(tokens: list[Any]) -> None:
    with pytest.raises(InvalidRequestError, match="prompt"):
        completion_request("m", tokens, {})


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="temprature"):
        completion_request("m", "x", {"temprature": 1})


def test_a_text_is_one_user_message() -> None:
    request = chat_request("m", "Hi", {})
    assert [(m.role, m.content) for m in request.messages] == [("user", "Hi")]


def test_max_tokens_none_means_as_many_as_fit() -> None:
    assert completion_request("m", "x", {"max_tokens": None}).max_tokens == UNLIMITED


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
    ],
)
def test_a_wrong_message_is_named(messages: list[Any], param: str) -> None:
    from snapllm.conversation import render_messages

    with pytest.raises(InvalidRequestError) as caught:
        render_messages(chat_request("m", messages, {}).messages, lambda part, where: where)
    assert caught.value.param == param


def test_thinking_takes_a_switch_or_a_budget() -> None:
    assert chat_request("m", "x", {"thinking": True}).thinking_budget_tokens == UNLIMITED
    limited = chat_request("m", "x", {"thinking": 100})
    assert (limited.thinking, limited.thinking_budget_tokens) == (True, 100)
    assert chat_request("m", "x", {"thinking": 0}).thinking is False


def test_a_tool_choice_must_name_an_offered_tool() -> None:
    tools = [{"type": "function", "function": {"name": "a"}}]
    chosen = chat_request("m", "x", {"tools": tools, "tool_choice": "a"})
    assert (chosen.tool_choice, len(chosen.tools)) == ("one", 1)
    with pytest.raises(InvalidRequestError, match="'b'"):
        chat_request("m", "x", {"tools": tools, "tool_choice": "b"})
    with pytest.raises(InvalidRequestError, match="no tools"):
        chat_request("m", "x", {"tool_choice": "required"})


@pytest.mark.parametrize("inputs", [[b"ab"], [{5: 1}], [memoryview(b"ab")]], ids=repr)
def test_what_only_reads_like_tokens_is_not_embedded(inputs: list[Any]) -> None:
    with pytest.raises(InvalidRequestError):
        embedding_request("m", inputs)
