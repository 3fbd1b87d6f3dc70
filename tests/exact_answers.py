"""Answers that were computed from the beginning, and how far others are from them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from ties import TIE

import snapllm
from snapllm.outputs import TokenLogprob

KvType: TypeAlias = Literal["f16", "q8_0", "f32"]

ANSWER_TOKENS = 8
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True, "num_logprobs": 20}
LARGEST_CONTEXT = 8192

_MAX_CACHED = 4000


class Answer(msgspec.Struct, frozen=True):
    """A greedy answer: its tokens, and for each the likeliest ones with log probabilities."""

    tokens: list[int]
    top: list[dict[int, float]]

    @classmethod
    def of(cls, logprobs: Sequence[TokenLogprob]) -> Answer:
        """The answer that the log probabilities of its tokens tell of."""
        top = [{other.token: other.logprob for other in entry.top} for entry in logprobs]
        return cls([entry.token for entry in logprobs], top)


def difference(got: Answer, expected: Answer) -> float:
    """The largest difference of log probabilities, up to where rounding may decide.

    Raises:
        AssertionError: A token differs where rounding does not decide, or one of the
            answers ends before the other does.
    """
    largest = 0.0
    for i, expected_token in enumerate(expected.tokens):
        assert i < len(got.tokens), f"the answer ends after {i} tokens"
        ours, theirs = got.top[i], expected.top[i]
        common = ours.keys() & theirs.keys()
        assert len(common) > 10, f"token {i} is of another distribution: {ours} for {theirs}"
        largest = max(largest, *(abs(ours[token] - theirs[token]) for token in common))
        if got.tokens[i] != expected_token:
            first, second, *_ = sorted(theirs.values(), reverse=True)
            assert first - second < TIE, f"token {i} is {got.tokens[i]}, not {expected_token}"
            return largest
    assert len(got.tokens) == len(expected.tokens)
    return largest


class Reference:
    """Answers of a model that reuses nothing, alone in its KV memory. Remembers them.

    Args:
        path: The model's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = snapllm.Engine(num_threads=1)
        self._known: dict[bytes, Answer] = {}

    def close(self) -> None:
        """Ends its engine."""
        self._engine.close()

    def answer(self, prompt: list[int], kv_type: KvType, max_tokens: int = ANSWER_TOKENS) -> Answer:
        """What a prompt is answered."""
        key = hashlib.blake2b(array("i", prompt).tobytes())
        key.update(f"{kv_type} {max_tokens}".encode())
        return self._remember(
            key.digest(),
            lambda: (
                self._model(kv_type)
                .generate(prompt, max_tokens=max_tokens, reuse_prefix=False, **GREEDY)
                .logprobs
            ),
        )

    def answer_about(self, document: str, question: str, kv_type: KvType) -> Answer:
        """What a question about a document is answered, in a chat that holds both."""
        messages = [{"role": "system", "content": document}, {"role": "user", "content": question}]
        key = hashlib.blake2b(f"{kv_type}\n{question}\n{document}".encode())
        return self._remember(
            key.digest(),
            lambda: (
                self._model(kv_type)
                .chat(messages, max_tokens=ANSWER_TOKENS, reuse_prefix=False, **GREEDY)
                .logprobs
            ),
        )

    def _model(self, kv_type: KvType) -> snapllm.Model:
        size = LARGEST_CONTEXT
        return self._engine.load(
            self._path, kv_type, kv_type=kv_type, context_size=size, kv_cells=size
        )

    def _remember(self, key: bytes, compute: Callable[[], Sequence[TokenLogprob]]) -> Answer:
        if key not in self._known:
            if len(self._known) >= _MAX_CACHED:
                self._known.clear()
            self._known[key] = Answer.of(compute())
        return self._known[key]
