"""The official OpenAI SDK against /v1/completions and /v1/responses."""

from __future__ import annotations

import statistics
from typing import Any

import openai
import pytest
from openai.types import CompletionChoice
from server_process import Server

TOOL: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}


def test_a_completion_continues_the_prompt(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "llama", "prompt": "One two", "temperature": 0}
    whole = client.completions.create(max_tokens=12, **options)
    assert whole.object == "text_completion"
    assert whole.usage is not None and 0 < whole.usage.completion_tokens <= 12
    chunks = list(
        client.completions.create(
            max_tokens=12, stream=True, stream_options={"include_usage": True}, **options
        )
    )
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.choices[0].finish_reason
    cut = client.completions.create(max_tokens=1, **options)
    assert cut.choices[0].finish_reason == "length"


def test_an_answer_goes_on_beyond_its_end_where_it_is_told_to(
    demo_client: openai.OpenAI, demo_server: Server
) -> None:
    options: dict[str, Any] = {"model": "demo", "temperature": 0, "max_tokens": 60}
    hello: Any = [{"role": "user", "content": "Hello"}]
    on = {"ignore_eos": True}
    chat = demo_client.chat.completions.create(messages=hello, extra_body=on, **options)
    assert chat.choices[0].finish_reason == "length"
    completion = demo_client.completions.create(prompt="Hello", extra_body=on, **options)
    assert completion.usage is not None and completion.usage.completion_tokens == 60
    answer = demo_server.post("/api/v1/generate", options | on | {"prompt": "Hello"})
    assert answer["usage"]["generated_tokens"] == 60
    assert demo_client.chat.completions.create(messages=hello, **options).usage != chat.usage


def test_many_prompts_and_choices_come_in_order(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "llama", "temperature": 0, "max_tokens": 5}
    both = client.completions.create(prompt=["One two", "Red green"], n=2, echo=True, **options)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = [
        client.completions.create(prompt=prompt, **options).choices[0].text
        for prompt in ("One two", "Red green")
    ]
    assert [choice.text for choice in both.choices] == [
        "One two" + alone[0],
        "One two" + alone[0],
        "Red green" + alone[1],
        "Red green" + alone[1],
    ]
    as_tokens = client.completions.create(prompt=[72, 101, 108], logprobs=2, **options)
    logprobs = as_tokens.choices[0].logprobs
    assert logprobs is not None and logprobs.token_logprobs is not None
    assert len(logprobs.token_logprobs) == 5


def test_a_prompt_is_scored_as_evaluations_ask_for_it(demo_client: openai.OpenAI) -> None:
    """Which of two texts a model finds likelier: what lm-evaluation-harness asks for."""
    options: dict[str, Any] = {"model": "demo", "temperature": 0, "echo": True, "logprobs": 1}
    options["extra_body"] = {"ignore_eos": True}
    question = "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"
    texts = [question + "2 + 3 = 5", question + "2 + 3 = 8", "Größe 😀"]
    whole = demo_client.completions.create(prompt=texts, max_tokens=1, **options)
    likelihoods = []
    for text, choice in zip(texts, whole.choices, strict=True):
        found = choice.logprobs
        assert found is not None and found.token_logprobs and found.text_offset
        assert choice.text.startswith(text) and found.token_logprobs[0] is None
        assert found.top_logprobs and not found.top_logprobs[0]
        assert len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset)
        for logprob, top in list(zip(found.token_logprobs, found.top_logprobs, strict=True))[1:]:
            assert logprob <= max(top.values()) + 1e-5
        assert found.text_offset == sorted(found.text_offset)
        assert found.text_offset[-1] == len(text)  # of the one token that was generated
        likelihoods.append(sum(found.token_logprobs[1:-1]))
    assert likelihoods[0] > likelihoods[1]
    none = demo_client.completions.create(prompt=texts, max_tokens=0, **options)
    for choice, text, with_one in zip(none.choices, texts, whole.choices, strict=True):
        assert choice.text == text and choice.finish_reason == "length"
        assert choice.logprobs and with_one.logprobs and with_one.logprobs.token_logprobs
        assert choice.logprobs.token_logprobs == with_one.logprobs.token_logprobs[:-1]
    streamed = demo_client.completions.create(prompt=texts, max_tokens=1, stream=True, **options)
    places: list[list[int]] = [[], [], []]
    written = ["", "", ""]
    for chunk in streamed:
        for choice in chunk.choices:
            written[choice.index] += choice.text
            assert choice.logprobs or not choice.text
            if choice.logprobs:
                places[choice.index] += choice.logprobs.text_offset or []
    assert written == [choice.text for choice in whole.choices]
    assert places == [choice.logprobs and choice.logprobs.text_offset for choice in whole.choices]


def test_tokens_are_echoed_as_their_text(client: openai.OpenAI) -> None:
    """The nano model's tokens are bytes: a prompt may begin within a character."""
    options: dict[str, Any] = {"model": "llama", "temperature": 0, "max_tokens": 2}
    text = "é one two"
    cut = list(text.encode())[1:]
    for prompt, echoed in ((list(text.encode()), text), (cut, "\ufffd" + text[1:])):
        plain = client.completions.create(prompt=prompt, echo=True, **options).choices[0]
        scored = client.completions.create(prompt=prompt, echo=True, logprobs=0, **options)
        assert plain.text == scored.choices[0].text and plain.text.startswith(echoed)
        found = scored.choices[0].logprobs
        assert found is not None and found.text_offset and found.tokens
        ends = dict(zip(found.text_offset, found.tokens, strict=True))
        for at, token in ends.items():
            if not token.startswith("bytes:"):
                assert plain.text[at : at + len(token)] == token
        assert found.text_offset[len(prompt)] == len(echoed)


def test_log_probabilities_of_a_completion_end_with_its_text(demo_client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "demo", "prompt": "Once upon a time", "temperature": 0}
    options |= {"max_tokens": 30, "logprobs": 0}
    whole = demo_client.completions.create(**options).choices[0]
    assert whole.logprobs is not None and whole.logprobs.tokens
    assert "".join(whole.logprobs.tokens) == whole.text
    stop = "".join(whole.logprobs.tokens[-4:-1])
    short = demo_client.completions.create(stop=stop, **options).choices[0]
    assert short.finish_reason == "stop" and short.logprobs is not None
    tokens = short.logprobs.tokens or []
    assert tokens == whole.logprobs.tokens[: len(tokens)]
    assert tokens and "".join(tokens) == short.text
    streamed: list[str] = []
    for chunk in demo_client.completions.create(stop=stop, stream=True, **options):
        for choice in chunk.choices:
            streamed += (choice.logprobs and choice.logprobs.tokens) or []
            assert choice.text or choice.logprobs is None
    assert streamed == tokens


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": "no model of these tests fills in"},
        {"best_of": 2, "n": 3},
        {"best_of": 2, "stream": True},
        {"best_of": 10_000},
        {"prompt": []},
        {"prompt": ""},
        {"prompt": [2**40]},
        {"max_tokens": -1},
    ],
)
def test_completions_that_cannot_be_given_are_refused(
    client: openai.OpenAI, fields: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"model": "llama", "prompt": "x"} | fields
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**options)
    assert (caught.value.param or "").startswith(next(iter(fields)))


def test_the_best_of_several_completions_is_the_one_that_is_returned(
    client: openai.OpenAI,
) -> None:
    options: Any = {"model": "llama", "prompt": "Hi", "seed": 3, "temperature": 1.5}
    options |= {"max_tokens": 8}
    every = client.completions.create(n=5, logprobs=0, **options)
    assert every.usage is not None

    def mean(choice: CompletionChoice) -> float:
        assert choice.logprobs is not None and choice.logprobs.token_logprobs
        return statistics.mean(choice.logprobs.token_logprobs)

    ordered = sorted(every.choices, key=mean, reverse=True)
    best = client.completions.create(best_of=5, n=2, **options)
    assert [choice.index for choice in best.choices] == [0, 1]
    assert [choice.text for choice in best.choices] == [choice.text for choice in ordered[:2]]
    assert all(choice.logprobs is None for choice in best.choices)
    # What was thrown away was generated, too.
    assert best.usage is not None
    assert best.usage.completion_tokens == every.usage.completion_tokens
    assert best.usage.prompt_tokens == every.usage.prompt_tokens
    [one] = client.completions.create(best_of=5, logprobs=2, **options).choices
    assert one.text == ordered[0].text and one.logprobs is not None


def test_a_response_is_answered_and_streamed_alike(demo_client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "demo", "input": "Hello!", "temperature": 0}
    whole = demo_client.responses.create(**options)
    assert whole.status == "completed"
    assert whole.output_text
    assert whole.usage is not None and whole.usage.output_tokens > 0
    assert (whole.temperature, whole.top_p, whole.max_output_tokens) == (0, 0.9, None)
    with demo_client.responses.stream(**options) as stream:
        types = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == whole.output_text
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert types.count("response.output_item.added") == types.count("response.output_item.done")
    cut = demo_client.responses.create(max_output_tokens=2, **options)
    assert cut.status == "incomplete"
    assert cut.output[0].to_dict()["status"] == "incomplete"


def test_a_response_calls_a_tool_and_uses_its_result(demo_client: openai.OpenAI) -> None:
    question: list[Any] = [{"role": "user", "content": "What's the weather in Tokyo?"}]
    options: dict[str, Any] = {"model": "demo", "tools": [TOOL], "temperature": 0}
    first = demo_client.responses.create(input=question, **options)
    [call] = [item for item in first.output if item.type == "function_call"]
    assert (call.name, call.arguments.replace(" ", "")) == ("get_weather", '{"location":"Tokyo"}')
    with demo_client.responses.stream(input=question, **options) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_response().output[-1]
    assert streamed.type == "function_call" and streamed.arguments == call.arguments
    answer = demo_client.responses.create(
        input=[
            *question,
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
            },
            {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"},
        ],
        **options,
    )
    assert "22" in answer.output_text


def test_a_custom_tool_is_called_with_text(demo_client: openai.OpenAI) -> None:
    own = {"name": "note", "description": "Writes a note"}
    response = demo_client.responses.create(
        model="demo",
        input="Tell me about the ocean.",
        tools=[{"type": "custom", **own}],  # type: ignore[typeddict-item]
        tool_choice={"type": "custom", "name": "note"},
        temperature=0,
    )
    [item] = response.output
    assert item.type == "custom_tool_call" and item.name == "note"
    options: Any = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Tell me about the ocean."}],
        "tools": [{"type": "custom", "custom": own}],
        "tool_choice": {"type": "custom", "custom": {"name": "note"}},
        "temperature": 0,
    }
    [choice] = demo_client.chat.completions.create(**options).choices
    [call] = choice.message.tool_calls or []
    assert call.type == "custom" and call.custom.input == item.input
    streamed = ""
    for chunk in demo_client.chat.completions.create(**options, stream=True):
        for piece in chunk.choices[0].delta.tool_calls or []:
            streamed += piece.to_dict()["custom"]["input"]  # type: ignore[index]
    assert streamed == item.input


@pytest.mark.parametrize(
    ("city", "more"),
    [
        ("Oslo", {}),
        ("Lima", {"store": False, "include": ["reasoning.encrypted_content"]}),
        ("Cairo", {"reasoning": {"effort": "low", "summary": "auto"}}),
    ],
)
def test_a_response_goes_on_from_the_kv_of_the_answer_it_follows(
    demo_client: openai.OpenAI, city: str, more: dict[str, Any]
) -> None:
    asked: list[Any] = [{"role": "user", "content": f"What's the weather in {city}?"}]
    options: dict[str, Any] = {
        "model": "demo",
        "tools": [TOOL],
        "temperature": 0,
        "reasoning": {"effort": "low"},
    }
    options |= more
    first = demo_client.responses.create(input=asked, **options)
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    items = [item.to_dict() for item in first.output]
    if "include" in more:  # the thoughts stand in what is carried, too
        del items[0]["content"]
    elif "reasoning" in more:
        assert items[0]["summary"][0]["text"] and not items[0]["content"]
    output = {"type": "function_call_output", "call_id": items[1]["call_id"], "output": "22"}
    history: Any = [*asked, *items, output]
    second = demo_client.responses.create(input=history, **options)
    assert first.usage is not None and second.usage is not None
    # The last token of an answer ends it, and is not computed.
    num_cached = second.usage.input_tokens_details.cached_tokens
    assert num_cached >= first.usage.input_tokens + first.usage.output_tokens - 1


def test_a_response_and_a_chat_reuse_each_others_prompts(demo_client: openai.OpenAI) -> None:
    """The history has all that an answer may: reasoning, a text and a call."""
    thought, said = "The user asks. I call the tool.", "Let me check."
    asked: Any = {"role": "user", "content": "What's the weather in Rome?"}
    function = {"name": "get_weather", "arguments": '{"location": "Rome"}'}
    chat = demo_client.chat.completions.create(
        model="demo",
        max_tokens=1,
        tools=[{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}],
        messages=[
            asked,
            {
                "role": "assistant",
                "content": said,
                "reasoning_content": thought,
                "tool_calls": [{"id": "1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "22"},
        ],
    ).usage
    reasoning = [{"type": "reasoning_text", "text": thought}]
    response = demo_client.responses.create(
        model="demo",
        max_output_tokens=1,
        tools=[TOOL],
        input=[
            asked,
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": reasoning},
            {"role": "assistant", "content": said},
            {"type": "function_call", "call_id": "1", **function},
            {"type": "function_call_output", "call_id": "1", "output": "22"},
        ],
    ).usage
    assert chat is not None and response is not None
    assert response.input_tokens == chat.prompt_tokens
    assert response.input_tokens_details.cached_tokens == chat.prompt_tokens - 1


def test_log_probabilities_come_with_the_text(demo_client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "model": "demo",
        "input": "What is the capital of Japan?",
        "temperature": 0,
        "top_logprobs": 3,
        "include": ["message.output_text.logprobs"],
    }
    whole: Any = demo_client.responses.create(**options)
    [part] = whole.output[0].content
    assert b"".join(bytes(entry.bytes) for entry in part.logprobs).decode() == part.text
    assert all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in part.logprobs)
    chat = demo_client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": options["input"]}],
        temperature=0,
        logprobs=True,
    )
    same: Any = chat.choices[0].logprobs
    assert [entry.token for entry in part.logprobs] == [entry.token for entry in same.content]

    pieces: list[Any] = []
    with demo_client.responses.stream(**options) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                pieces += event.logprobs
            elif event.type == "response.output_text.done":
                assert [entry.token for entry in event.logprobs] == [p.token for p in pieces]
        final: Any = stream.get_final_response()
    assert final.output[0].content[0].logprobs == part.logprobs
    assert [len(piece.top_logprobs) for piece in pieces] == [3] * len(part.logprobs)

    del options["include"]
    silent: Any = demo_client.responses.create(**options)
    assert silent.output[0].content[0].logprobs == []


def test_reasoning_is_an_item_of_its_own(demo_client: openai.OpenAI) -> None:
    response = demo_client.responses.create(
        model="demo", input="What is 27 + 45?", reasoning={"effort": "low"}, temperature=0
    )
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.usage is not None
    num_thoughts = response.usage.output_tokens_details.reasoning_tokens
    assert 0 < num_thoughts < response.usage.output_tokens
    chat = demo_client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "What is 27 + 45?"}],
        reasoning_effort="low",
        temperature=0,
    )
    assert chat.usage is not None and chat.usage.completion_tokens_details is not None
    assert chat.usage.completion_tokens_details.reasoning_tokens == num_thoughts
