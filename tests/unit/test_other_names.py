"""What OpenAI's endpoints take by other servers' names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snapllm.errors import InvalidRequestError
from snapllm.params import DEFAULT_MAX_TOKENS, ChatRequest, CompletionRequest
from snapllm.protocol import openai, openai_completions


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return openai.parse_chat(json.dumps(body).encode()).request


def completion(**fields: Any) -> CompletionRequest:
    body = {"model": "m", "prompt": "Hi", **fields}
    return openai_completions.parse(json.dumps(body).encode()).requests[0]


@pytest.mark.parametrize("read", [chat, completion])
def test_a_repetition_penalty_is_a_repeat_penalty(read: Any) -> None:
    assert read(repetition_penalty=1.3).sampling.repeat_penalty == pytest.approx(1.3)
    both = {"repetition_penalty": 1.3, "repeat_penalty": 1.3}
    assert read(**both) == read(repeat_penalty=1.3)
    assert read(repetition_penalty=None) == read()
    for wrong in (both | {"repeat_penalty": 1}, {"repetition_penalty": 0}):
        with pytest.raises(InvalidRequestError) as error:
            read(**wrong)
        assert error.value.param == "repetition_penalty"


@pytest.mark.parametrize("read", [chat, completion])
def test_so_many_predicted_tokens_are_generated_where_no_other_name_says_it(read: Any) -> None:
    for number in (5, 0, -1):
        assert read(n_predict=number).max_tokens == number
    assert read(n_predict=5, max_tokens=7).max_tokens == 7
    with pytest.raises(InvalidRequestError) as error:
        read(n_predict=-2)
    assert error.value.param == "n_predict"


def test_any_tool_is_a_required_one() -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    assert chat(tools=[tool], tool_choice="any") == chat(tools=[tool], tool_choice="required")


def test_a_chat_gets_as_many_tokens_as_its_newest_name_says() -> None:
    assert chat(n_predict=5, max_completion_tokens=9).max_tokens == 9
    assert chat(n_predict=None).max_tokens == DEFAULT_MAX_TOKENS
