"""Which tokens the pieces of an answer were made of."""

from __future__ import annotations

import pytest

from snapllm._readers import _LogprobMatcher
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
