"""The official OpenAI client against a running server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from server_process import Server
from ties import num_decided

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get weather for a location",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}},
            "required": ["location"],
        },
    },
}


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"llama", "qwen"}
    assert client.models.retrieve("qwen").owned_by == "local"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_streamed_chat_equals_the_whole_one(client: openai.OpenAI) -> None:
    options: Any = {"model": "llama", "messages": HELLO, "temperature": 0, "max_tokens": 60}
    whole = client.chat.completions.create(**options)
    chunks = list(
        client.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 60
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 60
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.choices[0].finish_reason == "length"
    assert all(reason is None for reason in reasons[:-1])


def test_usage_is_streamed_only_on_request(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="llama", messages=HELLO, max_tokens=4, stream=True, temperature=0
        )
    )
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_several_choices_are_several_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="llama", messages=HELLO, n=3, seed=1, temperature=1.5, max_tokens=20
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3


def test_more_choices_than_are_decoded_together_wait_for_each_other(
    client: openai.OpenAI,
) -> None:
    options: Any = {"model": "llama", "n": 128, "seed": 1, "max_tokens": 3, "temperature": 1.5}
    chat = client.chat.completions.create(messages=HELLO, **options)
    assert [choice.index for choice in chat.choices] == list(range(128))
    assert len({choice.message.content for choice in chat.choices}) > 64
    assert chat.usage is not None and chat.usage.completion_tokens > 128
    ended = {
        choice.index
        for chunk in client.chat.completions.create(messages=HELLO, stream=True, **options)
        for choice in chunk.choices
        if choice.finish_reason is not None
    }
    assert ended == set(range(128))
    completion = client.completions.create(prompt="Hello", **options)
    assert len(completion.choices) == 128
    best = client.completions.create(prompt="Hello", best_of=128, **{**options, "n": 1})
    assert len(best.choices) == 1


def test_a_tool_is_called_and_its_result_used(demo_client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "What's the weather in Tokyo?"}]
    options: Any = {"model": "demo", "tools": [TOOL], "temperature": 0}
    answer = demo_client.chat.completions.create(messages=messages, **options)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"location": "Tokyo"}

    messages.append(choice.message)
    result = {"role": "tool", "tool_call_id": call.id, "content": "22°C, partly cloudy"}
    messages.append(result)
    final = demo_client.chat.completions.create(messages=messages, **options).choices[0]
    assert final.finish_reason == "stop"
    assert "22°C, partly cloudy" in (final.message.content or "")


def test_a_streamed_tool_call_is_put_together_by_the_sdk(demo_client: openai.OpenAI) -> None:
    with demo_client.chat.completions.stream(
        model="demo",
        messages=[{"role": "user", "content": "What's the weather in Tokyo?"}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        temperature=0,
    ) as stream:
        message: Any = stream.get_final_completion().choices[0].message
    assert message.content is None
    assert message.tool_calls[0].function.name == "get_weather"
    assert json.loads(message.tool_calls[0].function.arguments) == {"location": "Tokyo"}


def test_a_function_is_called_and_its_result_used(demo_client: openai.OpenAI) -> None:
    """As before there were tools."""
    messages: list[Any] = [{"role": "user", "content": "What's the weather in Tokyo?"}]
    options: Any = {"model": "demo", "functions": [TOOL["function"]], "temperature": 0}
    answer = demo_client.chat.completions.create(messages=messages, **options).choices[0]
    assert (answer.finish_reason, answer.message.content) == ("function_call", None)
    assert answer.message.tool_calls is None
    call = answer.message.function_call
    assert call is not None and call.name == "get_weather"
    assert json.loads(call.arguments) == {"location": "Tokyo"}
    name, arguments = "", ""
    for chunk in demo_client.chat.completions.create(messages=messages, **options, stream=True):
        if (piece := chunk.choices[0].delta.function_call) is not None:
            name += piece.name or ""
            arguments += piece.arguments or ""
    assert (name, arguments) == (call.name, call.arguments)
    assert chunk.choices[0].finish_reason == "function_call"

    messages.append(answer.message)
    messages.append({"role": "function", "name": call.name, "content": "22°C, partly cloudy"})
    final = demo_client.chat.completions.create(messages=messages, **options).choices[0]
    assert final.finish_reason == "stop"
    assert "22°C, partly cloudy" in (final.message.content or "")


@pytest.mark.parametrize("mode", ["none", {"name": "get_weather"}])
def test_a_function_is_called_where_it_is_chosen(demo_client: openai.OpenAI, mode: Any) -> None:
    answer = demo_client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Tell me about the ocean."}],
        functions=[TOOL["function"]],
        function_call=mode,
        max_tokens=200,
        temperature=0,
    ).choices[0]
    assert (answer.message.function_call is None) == (mode == "none")


@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("text", ["Hello!", "Tell me about the ocean."])
def test_a_required_call_comes_whatever_was_asked(
    demo_client: openai.OpenAI, text: str, thinks: bool
) -> None:
    answer: Any = demo_client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": text}],
        tools=[TOOL],
        tool_choice="required",
        reasoning_effort="high" if thinks else "none",
        max_tokens=200,
        seed=1,
    ).choices[0]
    assert not answer.message.content
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert isinstance(json.loads(call.function.arguments)["location"], str)


def test_the_demo_reasons_when_asked_to(demo_client: openai.OpenAI) -> None:
    question: list[Any] = [{"role": "user", "content": "What is 27 + 45?"}]
    for effort, has_reasoning in (("high", True), ("none", False)):
        answer: Any = demo_client.chat.completions.create(
            model="demo", messages=question, temperature=0, reasoning_effort=effort
        ).choices[0]
        assert bool(getattr(answer.message, "reasoning_content", "")) == has_reasoning
        assert "<think>" not in answer.message.content


def test_structured_output_follows_its_schema(client: openai.OpenAI) -> None:
    form: Any = {
        "type": "json_schema",
        "json_schema": {
            "name": "answer",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"ok": {"type": "boolean"}},
                "required": ["ok"],
                "additionalProperties": False,
            },
        },
    }
    answer = client.chat.completions.create(
        model="llama", messages=HELLO, response_format=form, max_tokens=100
    )
    assert isinstance(json.loads(answer.choices[0].message.content or "")["ok"], bool)


def test_log_probabilities_come_with_the_content(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="llama", messages=HELLO, logprobs=True, top_logprobs=3, max_tokens=5, temperature=0
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    for entry in logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"max_tokens": -1}, openai.BadRequestError, "max_tokens"),
        ({"n": 129}, openai.BadRequestError, "n"),
        (
            {"messages": [{"role": "user", "content": "a" * 100_000}]},
            openai.BadRequestError,
            "messages",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            openai.BadRequestError,
            "messages[0].content[0].image_url",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_raise_the_sdks_own_exceptions(
    client: openai.OpenAI,
    changes: Any,
    error: type[openai.APIStatusError],
    param: str,
    stream: bool,
) -> None:
    options: Any = {"model": "llama", "messages": HELLO, "max_tokens": 4} | changes
    with pytest.raises(error) as caught:
        client.chat.completions.create(**options, stream=stream)
    found: Any = caught.value
    assert found.param == param
    assert found.code in ("model_not_found", "invalid_request", "context_length_exceeded")
    assert found.request_id


Answer = list[tuple[bytes, float]]
"""Tokens, each with how far above the next likely one it is."""


def test_many_asynchronous_clients_get_their_own_answers(server: Server) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int, model: str) -> Answer:
        answer: Answer = []
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": f"I am number {number}"}],
            temperature=0,
            max_tokens=30,
            stream=True,
            logprobs=True,
            top_logprobs=2,
        )
        async for chunk in stream:
            found = chunk.choices[0].logprobs
            for token in (found and found.content) or []:
                first, second = token.top_logprobs
                answer.append((bytes(token.bytes or []), first.logprob - second.logprob))
        return answer

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="x") as client:
            wanted = [(n, model) for n in range(12) for model in ("llama", "qwen")]
            alone = [await ask(client, *each) for each in wanted]
            together = await asyncio.gather(*(ask(client, *each) for each in wanted))
            decided = 0
            for one, among in zip(alone, together, strict=True):
                end = num_decided([gap for _, gap in one])
                assert [token for token, _ in among[:end]] == [token for token, _ in one[:end]]
                decided += end
            assert decided > 10 * len(alone)
            assert len({tuple(token for token, _ in one) for one in alone}) == len(alone)

    asyncio.run(main())
