"""Which tokens the pieces of an answer were made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from snapllm._readers import CompletionReader, _LogprobMatcher
from snapllm.outputs import TokenLogprob


@pytest.mark.parametrize(
    ("tokens", "pieces", "expected"),
    [
        # In markup before the text; with the blanks that begin an answer cut off, or not.
        (["</think>", "\n\n", "h", "i"], ["h", "i"], [["h"], ["i"]]),
        (["</think>", "\n\n", " h", "i"], ["h", "i"], [[" h"], ["i"]]),
        (["</think>", " think", " hi"], ["think", " hi"], [[" think"], [" hi"]]),
        # A token whose text comes in two pieces belongs to the first.
        (["<a>", "the", "n", " a"], ["t", "he", "n a"], [["the"], [], ["n", " a"]]),
        (["a", "b", "ab"], ["a", "b", "ab"], [["a"], ["b"], ["ab"]]),
        # Nowhere but within a token, or nowhere at all.
        (["<x>h", "i"], ["h", "i"], [["<x>h"], ["i"]]),
        (["\udcff", "i"], ["?i"], [["\udcff", "i"]]),
        # Broken UTF-8 was mended: one character for what began as one.
        (["a", "\udce5", "6", "b"], ["a\ufffd6"], [["a", "\udce5", "6"]]),
        (["a", "\udce5", "6", "b"], ["a", "\ufffd", "6b"], [["a"], ["\udce5"], ["6", "b"]]),
        (
            ["\udcf0\udc9f", "\udcff", "the", "x"],
            ["\ufffd\ufffdt"],
            [["\udcf0\udc9f", "\udcff", "the"]],
        ),
        (["<a>", "\udcff", "i"], ["\ufffdi"], [["\udcff", "i"]]),
        # Control tokens are no text, wherever they come.
        (["</t>", "A", " b", "<|x|>", " c", "d"], ["A b c", "d"], [["A", " b", " c"], ["d"]]),
        (["A", "<|x|>", "bc", "d"], ["Ab", "cd"], [["A", "bc"], ["d"]]),
        (["A", "A", "<|x|>", "b"], ["AAb"], [["A", "A", "b"]]),
    ],
)
def test_a_piece_has_the_tokens_that_it_was_made_of(
    tokens: list[str], pieces: list[str], expected: list[list[str]]
) -> None:
    matcher = _LogprobMatcher()
    matcher.add(
        tuple(
            TokenLogprob(i, t.encode(errors="surrogateescape"), -1.0) for i, t in enumerate(tokens)
        )
    )
    found = [
        [entry.bytes.decode(errors="surrogateescape") for entry in matcher.take(piece)]
        for piece in pieces
    ]
    assert found == expected


def output(text: str, tokens: list[str], ended_by: str | None = None) -> Any:
    """One of the core's; `ended_by` is a stop string, "" = the end that the model chose."""
    counts = (
        "num_hot_tokens",
        "num_warm_tokens",
        "num_cold_tokens",
        "restore_ms",
        "differs_at",
        "cached_token",
    )
    return SimpleNamespace(
        text=text,
        tokens=list(range(len(tokens))),
        prompt_logprobs=[],
        logprobs=[
            SimpleNamespace(token=i, bytes=token.encode(), logprob=-1.0, top=[])
            for i, token in enumerate(tokens)
        ],
        error=None,
        finish_reason="stop" if ended_by is not None else None,
        stop_sequence=ended_by,
        seed=0,
        num_prompt_tokens=1,
        num_cached_tokens=0,
        num_generated_tokens=5,
        cache=SimpleNamespace(**dict.fromkeys(counts, 0)),
        timings=SimpleNamespace(queue_ms=0, prefill_ms=0, decode_ms=0),
    )


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        # What may be the beginning of the stop string "END" is held back until it is known.
        (
            [("a ", ["a", " "]), ("", ["EN"]), ("ENO", ["O"]), ("", ["E"]), ("", ["ND"], "END")],
            [["a", " "], [], ["EN", "O"], [], []],
        ),
        ([("a b", ["a", " bE", "ND"], "END")], [["a", " bE"]]),
        ([("", ["END"], "END")], [[]]),
        # Without one all tokens are the answer's, also those without a text.
        (
            [("a", ["a"]), ("", ["<x>"]), ("b", ["b"]), ("", ["<y>"], "")],
            [["a"], [], ["<x>", "b"], ["<y>"]],
        ),
    ],
)
def test_the_tokens_of_a_stop_string_are_not_the_answers(
    outputs: list[tuple[Any, ...]], expected: list[list[str]]
) -> None:
    reader = CompletionReader()
    chunks = [chunk for each in outputs for chunk in reader.read(output(*each))]
    assert [[entry.bytes.decode() for entry in chunk.logprobs] for chunk in chunks] == expected
