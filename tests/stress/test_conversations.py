"""Many conversations at once, more than any tier holds: each answers as it does alone.

Environment: SNAPLLM_CONVERSATIONS is how many there are (default 40).
"""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from exact_answers import ANSWER_TOKENS, GREEDY, Answer, Reference, difference
from nano_models import Architecture, make_nano_model

import snapllm

COUNT = int(os.environ.get("SNAPLLM_CONVERSATIONS", "40"))
NUM_TURNS = 3
NUM_THREADS = 24
CELLS = 2048
LONG_ANSWER = 600  # tokens, for one in ten: they outgrow the KV memory
ROUNDING = 0.01


def random_tokens(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(250) for _ in range(count)]


class Talk:
    """A conversation of some turns; what it was answered and what it cost."""

    def __init__(self, number: int, heads: list[list[int]]) -> None:
        rng = random.Random(number)
        self._rng, self._number = rng, number
        # Half of them share a beginning, not always all of it.
        head = rng.choice(heads)[: rng.choice((1000, 1000, 256, 90))] if number % 2 else []
        self._prompt = head + random_tokens(1000 + number, rng.randrange(1, 300))
        self._max_tokens = LONG_ANSWER if number % 10 == 0 else ANSWER_TOKENS
        self.turns: list[tuple[list[int], int, Answer]] = []
        self.num_cached = 0

    def is_short(self) -> bool:
        """Whether its next answer is short."""
        return bool(self.turns) or self._max_tokens == ANSWER_TOKENS

    def go_on(self, model: snapllm.Model) -> None:
        """The next turn."""
        max_tokens = self._max_tokens if not self.turns else ANSWER_TOKENS
        result = model.generate(self._prompt, max_tokens=max_tokens, **GREEDY)
        assert result.usage.num_cached_tokens < len(self._prompt)
        self.num_cached += result.usage.num_cached_tokens
        self.turns.append((self._prompt, max_tokens, Answer.of(result.logprobs)))
        seed = 10_000 * len(self.turns) + self._number
        self._prompt = (
            self._prompt + result.tokens + random_tokens(seed, self._rng.randrange(1, 60))
        )


def wait_for_bounds(engine: snapllm.Engine) -> None:
    """Waits until no tier is over its bound; what is not written yet stays in RAM."""
    deadline = time.monotonic() + 20
    while True:
        store = engine.stats().kv_store
        if store.ram_bytes <= store.max_ram_bytes and store.disk_bytes <= store.max_disk_bytes:
            return
        assert time.monotonic() < deadline, "the store keeps more than it may"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "mamba2", "lfm2"])
def test_each_of_many_conversations_answers_as_it_does_alone(
    tmp_path: Path, architecture: Architecture
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", architecture, context_size=CELLS)
    heads = [random_tokens(i, count) for i, count in enumerate((20, 256, 300, 513))]
    talks = [Talk(number, heads) for number in range(COUNT)]
    rng = random.Random(1)
    with (
        snapllm.Engine(
            num_threads=1, workspace=tmp_path / "w", kv_ram_bytes=1 << 20, kv_disk_bytes=2 << 20
        ) as engine,
        ThreadPoolExecutor(NUM_THREADS) as threads,
    ):
        model = engine.load(path, "m", context_size=CELLS, kv_cells=CELLS)
        for _ in range(NUM_TURNS):
            # Those with long answers at once, so that they outgrow the KV memory together.
            order = sorted(rng.sample(talks, len(talks)), key=Talk.is_short)
            list(threads.map(lambda talk: talk.go_on(model), order))
        wait_for_bounds(engine)
        stats = engine.stats()
        assert stats.kv_store.num_ram_evictions > 0 and stats.kv_store.num_disk_evictions > 0
        [counts] = stats.models
        assert counts.num_preemptions > 0 and sum(talk.num_cached for talk in talks) > 0
        assert counts.num_failed == 0
    reference = Reference(path)
    largest = 0.0
    for talk in talks:
        for prompt, max_tokens, got in talk.turns:
            expected = reference.answer(prompt, "f16", max_tokens)
            largest = max(largest, difference(got, expected))
    reference.close()
    assert largest < ROUNDING
