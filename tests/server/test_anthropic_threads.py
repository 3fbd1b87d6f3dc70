"""Threads, which Anthropic's clients ask for of their own accord: refused so that they send
the whole conversation."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from server_process import Server

SYSTEM = "The vault code is 7341. The office opens at 8:30."
ASK: list[Any] = [{"role": "user", "content": "What's the weather in Paris?"}]
SHARED: dict[str, Any] = {"model": "demo", "max_tokens": 300, "system": SYSTEM}
GREEDY: dict[str, Any] = {"extra_body": {"temperature": 0}}


@anthropic.beta_tool
def get_weather(location: str) -> str:
    """Get the current weather for a location"""
    assert location == "Paris"
    return "18 degrees and sunny"


@pytest.fixture
def claude(demo_server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=demo_server.url, api_key="snapllm", max_retries=0)


def contents(messages: list[Any]) -> list[list[tuple[Any, ...]]]:
    """The content of messages, without the ids of their calls."""
    return [
        [(block.type, getattr(block, "text", None) or block.input) for block in message.content]
        for message in messages
    ]


def by_hand(claude: anthropic.Anthropic) -> list[Any]:
    """The two steps of the conversation, each sent whole."""
    options: dict[str, Any] = SHARED | GREEDY | {"tools": [get_weather.to_dict()]}
    first = claude.beta.messages.create(messages=ASK, **options)
    call = first.content[-1]
    assert call.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees and sunny"}
    history: list[Any] = [
        *ASK,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    return [first, claude.beta.messages.create(messages=history, **options)]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_tool_runner_loses_nothing_of_the_conversation(
    claude: anthropic.Anthropic, is_streamed: bool
) -> None:
    runner: Any = claude.beta.messages.tool_runner(
        messages=ASK, tools=[get_weather], stream=is_streamed, **SHARED, **GREEDY
    )
    steps = [step.get_final_message() if is_streamed else step for step in runner]
    expected = by_hand(claude)
    assert contents(steps) == contents(expected)
    assert "18" in steps[-1].content[-1].text
    for step, whole in zip(steps, expected, strict=True):
        sizes = [
            message.usage.input_tokens + message.usage.cache_read_input_tokens
            for message in (step, whole)
        ]
        assert sizes[0] == sizes[1]


def test_a_thread_goes_on_without_the_server_holding_it(claude: anthropic.Anthropic) -> None:
    thread = claude.beta.messages.thread(
        unsupported_request_behavior="continue_unthreaded", **SHARED
    )
    hello: Any = {"role": "user", "content": "Hello!"}
    question: Any = {"role": "user", "content": "What is the vault code?"}
    thread.send(hello, **GREEDY)
    [answer] = thread.send(question, **GREEDY).content
    assert answer.type == "text" and "7341" in answer.text


@pytest.mark.parametrize(
    "thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}]
)
def test_a_thread_is_refused_with_the_code_that_clients_know(
    claude: anthropic.Anthropic, thread: Any
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.beta.messages.create(messages=ASK, thread=thread, **SHARED)
    body: Any = caught.value.body
    error = body["error"]
    assert error["details"] == {"error_code": "thread_unsupported_request"}
    assert (error["type"], error["param"]) == ("invalid_request_error", "thread")
    assert type(caught.value).__name__ == "ThreadUnsupportedRequestError"
