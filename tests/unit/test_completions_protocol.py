"""OpenAI's legacy completions, written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snapllm.errors import InvalidRequestError
from snapllm.outputs import (
    Completion,
    CompletionChunk,
    Finish,
    TokenAlternative,
    TokenLogprob,
)
from snapllm.protocol import openai_completions


def entry(text: str) -> TokenLogprob:
    return TokenLogprob(0, text.encode(), -0.5)


def parse(**fields: Any) -> openai_completions.Parsed:
    return openai_completions.parse(json.dumps({"model": "m", "prompt": "x"} | fields).encode())


def ended(text: str, *logprobs: float) -> Completion:
    entries = [TokenLogprob(0, b"x", logprob) for logprob in logprobs]
    return Completion(text=text, tokens=[], finish_reason="stop", logprobs=entries)


def test_the_best_answers_have_the_highest_log_probability_per_token() -> None:
    answers = [
        ended("empty"),
        ended("long", *[-0.5] * 9),
        ended("same", -0.1, -0.9),
        ended("bad", -2.0),
        ended("best", -0.1),
    ]
    parsed = parse(n=3, best_of=5)
    assert parsed.requests[0].n == 5 and parsed.requests[0].sampling.num_logprobs == 0
    chosen = openai_completions.choose(answers, parsed)
    assert [answer.text for answer in chosen] == ["best", "long", "same"]
    assert not any(answer.logprobs for answer in chosen)
    chosen = openai_completions.choose(answers, parse(n=4, best_of=5, logprobs=1))
    assert [len(answer.logprobs) for answer in chosen] == [1, 9, 2, 1]


def test_where_all_answers_are_returned_they_are_in_their_order() -> None:
    parsed = parse(n=2, best_of=2, stream=True)
    assert parsed == parse(n=2, stream=True)
    answers = [ended("bad", -2.0), ended("best", -0.1)]
    assert openai_completions.choose(answers, parsed) == answers


def test_answers_that_are_thrown_away_count_among_those_of_all_prompts() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(prompt=["x"] * 52, best_of=5)
    assert caught.value.param == "prompt"


def test_text_offsets_are_those_of_the_tokens_though_text_is_held_back() -> None:
    entries = [entry(text) for text in ("One", " two", "é end")]
    # The beginning of a stop string keeps the text of two tokens back, and ends in the last.
    chunks = [
        CompletionChunk(text="One", logprobs=(entries[0],)),
        CompletionChunk(text=""),
        CompletionChunk(text=" twoé", logprobs=(entries[1], entries[2])),
        CompletionChunk(finish=Finish(finish_reason="stop")),
    ]
    encoder = openai_completions.Encoder("m", has_logprobs=True)
    sent = [json.loads(encoder.chunk(0, chunk))["choices"][0]["logprobs"] for chunk in chunks]
    streamed = [offset for logprobs in sent if logprobs for offset in logprobs["text_offset"]]
    result = Completion(text="One twoé", tokens=[], finish_reason="stop", logprobs=entries)
    usage = openai_completions.add_usage([[result]])
    [choice] = json.loads(encoder.response([("", result)], usage))["choices"]
    assert streamed == choice["logprobs"]["text_offset"] == [0, 3, 7]


def test_an_answer_without_tokens_has_the_log_probabilities_that_were_asked_for() -> None:
    """Clients add them up: those of several answers, one of which may be over at once."""
    ends = [ended("One", -0.5), ended("")]
    usage = openai_completions.add_usage([ends])
    answers = [("", each) for each in ends]
    for has_logprobs in (True, False):
        encoder = openai_completions.Encoder("m", has_logprobs=has_logprobs)
        choices = json.loads(encoder.response(answers, usage))["choices"]
        found = [each["logprobs"] and each["logprobs"]["token_logprobs"] for each in choices]
        assert found == ([[-0.5], []] if has_logprobs else [None, None])


def test_a_character_of_several_tokens_is_one_in_offsets_and_its_parts_differ() -> None:
    parts = [part.encode("latin-1") for part in ("a", "\xf0\x9f", "\x98\x80", "b")]  # "a😀b"
    alternatives = tuple(TokenAlternative(n, bytes([0xF0, 0x90 + n]), -1.0 - n) for n in range(3))
    entries = [TokenLogprob(0, part, -0.5, alternatives) for part in parts]
    chunk = CompletionChunk(text="a😀b", logprobs=tuple(entries))
    encoder = openai_completions.Encoder("m")
    logprobs = json.loads(encoder.chunk(0, chunk))["choices"][0]["logprobs"]
    assert logprobs["text_offset"] == [0, 1, 1, 2]
    assert logprobs["tokens"] == ["a", "bytes:\\xf0\\x9f", "bytes:\\x98\\x80", "b"]
    for token, top in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True):
        assert len(top) == len(alternatives) + 1 and top[token] == -0.5


@pytest.mark.parametrize(
    ("tokens", "echo", "offsets"),
    [
        ([b"<s>", b" One", b" two"], "One two", [0, 0, 3]),
        ([b"<s>", b"\xf0", b"\x9f\x99", b"\x82", b" hi"], "\U0001f642 hi", [0, 0, 0, 0, 1]),
        ([b"<s>", b" ", b"\xc3", b"\xa9", b"!"], "é!", [0, 0, 0, 0, 1]),
        ([b"\x98\x80", b" hello", b" world"], "\ufffd\ufffd hello world", [0, 2, 8]),
        ([b"a"], "a", [0]),
        ([b"<s>"], "", [0]),
    ],
)
def test_offsets_of_a_prompt_are_those_in_its_echo(
    tokens: list[bytes], echo: str, offsets: list[int]
) -> None:
    entries = tuple(TokenLogprob(0, token, -0.5) for token in tokens)
    encoder = openai_completions.Encoder("m", has_logprobs=True)
    assert not list(encoder.echo(0, echo))
    chunk = CompletionChunk(prompt_logprobs=entries)
    choice = json.loads(encoder.chunk(0, chunk))["choices"][0]
    assert choice["text"] == echo
    assert choice["logprobs"]["text_offset"] == offsets
