"""Random use of several models from many threads under a small memory budget.

Short by default; SNAPLLM_STRESS_S makes it run longer.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import threading
import time
from pathlib import Path

import pytest
from nano_models import Architecture, make_nano_model
from ties import decided_tokens

import snapllm

DURATION_S = float(os.environ.get("SNAPLLM_STRESS_S", "8"))
NUM_THREADS = 8
FILES: dict[str, Architecture] = {"a": "llama", "b": "qwen3", "c": "llama", "d": "mamba2"}
# `e` is a second id of a's file.
IDS = {"a": "a", "b": "b", "c": "c", "d": "d", "e": "a"}
PROMPTS = ["hello", "the quick brown fox jumps over the lazy dog", "x" * 300, "12 34 56"]
OPTIONS = {"context_size": 1024, "kv_cells": 8192, "max_sequences": 8}
LENGTH = {"max_tokens": 24, "ignore_eos": True}
GREEDY = {"temperature": 0.0} | LENGTH
# What may well happen when others unload models at the same time.
EXPECTED = {"model_not_found", "closed", "out_of_memory", "queue_full"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stress")
    return {
        name: make_nano_model(folder / f"{name}.gguf", kind, seed=seed)
        for seed, (name, kind) in enumerate(FILES.items())
    }


class Users:
    """Threads that do random things, and what they found wrong."""

    def __init__(
        self,
        engine: snapllm.Engine,
        paths: dict[str, Path],
        truth: dict[tuple[str, str], list[int]],
    ) -> None:
        self.engine, self.paths, self.truth = engine, paths, truth
        self.deadline = time.monotonic() + DURATION_S
        self.problems: list[str] = []
        self.num_checked = 0
        self.codes: set[str] = set()

    def run(self, seed: int) -> None:
        rng = random.Random(seed)
        actions = [self.generate] * 8 + [self.leave] * 4 + [self.load] * 3
        actions += [self.unload, self.switch, self.pin, self.look, self.charge]
        while time.monotonic() < self.deadline and not self.problems:
            try:
                rng.choice(actions)(rng)
            except snapllm.SnapLLMError as error:
                self.codes.add(error.code)
                if error.code not in EXPECTED:
                    self.problems.append(f"{error.code}: {error}")
            except Exception as error:
                self.problems.append(repr(error))

    def load(self, rng: random.Random) -> None:
        model_id = rng.choice(list(IDS))
        self.engine.load(self.paths[IDS[model_id]], model_id, **OPTIONS)

    def unload(self, rng: random.Random) -> None:
        self.engine.unload(rng.choice(list(IDS)))

    def switch(self, rng: random.Random) -> None:
        self.engine.switch(rng.choice(list(IDS)))

    def pin(self, rng: random.Random) -> None:
        model_id = rng.choice(list(IDS))
        self.engine.pin(model_id)
        time.sleep(0.002)
        self.engine.unpin(model_id)

    def look(self, _: random.Random) -> None:
        memory = self.engine.stats().memory
        if memory.models_bytes > memory.budget_bytes:
            self.problems.append(f"{memory.models_bytes} bytes of {memory.budget_bytes}")
        for model in self.engine.models():
            assert model.id in IDS

    def charge(self, rng: random.Random) -> None:
        try:
            self.engine.set_external_memory("other", rng.randrange(20 << 20))
        finally:
            self.engine.set_external_memory("other", 0)

    def generate(self, rng: random.Random) -> None:
        model_id, prompt = rng.choice(list(IDS)), rng.choice(PROMPTS)
        tokens = self.engine.model(model_id).generate(prompt, **GREEDY).tokens
        self.check(model_id, prompt, tokens, whole=True)

    def leave(self, rng: random.Random) -> None:
        """Reads a part of an answer and leaves."""
        model_id, prompt = rng.choice(list(IDS)), rng.choice(PROMPTS)
        stream = self.engine.model(model_id).generate(prompt, stream=True, **GREEDY)
        tokens: list[int] = []
        for _ in range(rng.randrange(4)):
            piece = next(stream, None)
            if piece is not None:
                tokens += piece.tokens
        stream.close()  # type: ignore[attr-defined]
        self.check(model_id, prompt, tokens, whole=False)

    def check(self, model_id: str, prompt: str, tokens: list[int], whole: bool) -> None:
        expected = self.truth[IDS[model_id], prompt]
        self.num_checked += 1
        if (whole and len(tokens) != LENGTH["max_tokens"]) or any(
            got != want for got, want in zip(tokens, expected, strict=False)
        ):
            self.problems.append(f"{model_id} answered {tokens} to {prompt[:20]!r}: {expected}")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def budget_of_two(paths: dict[str, Path]) -> int:
    """A budget that holds two or three of the models."""
    with snapllm.Engine(num_threads=1) as engine:
        for name, path in paths.items():
            engine.load(path, name, **OPTIONS)
        largest = max(m.info.kv_bytes + m.info.compute_bytes for m in engine.models())
    low, high = 0, 4 << 30
    while high - low > 1 << 20:
        middle = (low + high) // 2
        with snapllm.Engine(num_threads=1, memory_budget_bytes=middle) as engine:
            try:
                for name, path in paths.items():
                    engine.load(path, name, **OPTIONS)
                high = middle
            except snapllm.OutOfMemoryError:
                low = middle
    return high + largest


def test_nothing_mixes_leaks_or_hangs(paths: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1) as alone:
        truth = {
            (name, prompt): decided_tokens(alone.load(path, name, **OPTIONS), prompt, **LENGTH)
            for name, path in paths.items()
            for prompt in PROMPTS
        }
    assert len({tuple(tokens) for tokens in truth.values()}) > len(PROMPTS)
    engine = snapllm.Engine(
        num_threads=1, memory_budget_bytes=budget_of_two(paths), kv_ram_bytes=4 << 20
    )
    users = Users(engine, paths, truth)
    with engine:
        threads = [threading.Thread(target=users.run, args=(i,)) for i in range(NUM_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DURATION_S + 120)
        assert not any(thread.is_alive() for thread in threads), "a thread hangs"
        assert users.problems == []
        assert users.num_checked > 50
        stats = engine.stats()
        assert stats.memory.num_evictions > 0
        for model_id in list(IDS):
            with contextlib.suppress(snapllm.ModelNotFoundError):
                _settle(engine, model_id)
                engine.unload(model_id)
        memory = engine.stats().memory
        assert (memory.models_bytes, memory.external_bytes) == (0, 0)
    gc.collect()


def _settle(engine: snapllm.Engine, model_id: str) -> None:
    """Waits until the requests that were left are gone."""
    deadline = time.monotonic() + 10
    while True:
        found = [s for s in engine.stats().models if s.id == model_id]
        if all(s.num_running == s.num_waiting == 0 for s in found):
            return
        assert time.monotonic() < deadline, f"{model_id} still has requests"
        time.sleep(0.005)


def test_loading_and_unloading_does_not_leak(paths: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        sizes = []
        for number in range(60):
            model = engine.load(paths["b"], "b", **OPTIONS)
            model.generate("hello", **GREEDY)
            engine.unload("b")
            if number % 20 == 19:
                sizes.append(resident_bytes())
        assert sizes[2] - sizes[1] < 8 << 20, sizes
