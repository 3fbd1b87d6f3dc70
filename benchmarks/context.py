"""A question to a context: its time to the first token by tier, and what moving one takes.

Moves are set beside what the machine can do with as many bytes: a copy in memory, and a
plain read of the very files, from the page cache and from the device.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import snapllm
from benchmarks.report import Row, interleaved, ratio_row, row
from snapllm.contexts import QueryResult

SLOW_MS = 10_000.0
"""Where ingesting takes longer, that is the full prefill; no question computes it again."""
CHUNK_BYTES = 1 << 20


def run(options: argparse.Namespace) -> list[Row]:
    """Documents of several lengths; the ratio to the full prefill is in the note."""
    rows: list[Row] = []
    with snapllm.Engine(num_threads=options.threads, workspace=options.scratch) as engine:
        model = engine.load(options.model)
        for length in options.lengths:
            if length + 256 < model.info.context_size:
                rows += _Document(engine, model, length, options.scratch).measure(options.rounds)
    return rows


def document(count_tokens: Callable[[str], int], length: int) -> str:
    """A text of at least so many tokens."""
    rng = random.Random(length)
    words: list[str] = []
    while count_tokens(" ".join(words)) < length:
        words += [f"Item {len(words)} is {rng.randrange(1000)}." for _ in range(20)]
    return " ".join(words)


@dataclass
class _Document:
    """One context, measured and deleted again."""

    engine: snapllm.Engine
    model: snapllm.Model
    length: int
    workspace: Path
    reference: str = ""
    num_questions: int = 0
    bandwidths: dict[str, list[float]] = field(default_factory=dict)
    restores_ms: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, rounds: int) -> list[Row]:
        contexts = self.engine.contexts
        text = document(lambda text: len(self.model.tokenize(text)), self.length)
        start = time.perf_counter()
        view = contexts.ingest(text, self.model.id)
        ingest_ms = (time.perf_counter() - start) * 1000
        self.reference = view.record.id
        is_slow = ingest_ms > SLOW_MS
        prefills = [ingest_ms] if is_slow else [self._first_token_ms() for _ in range(rounds)]
        tiers: dict[str, Callable[[], float]] = {
            "hot": lambda: self._in_tier("hot", "hot"),
            "warm": lambda: self._in_tier("warm", "warm"),
            "cold, page cache": lambda: self._in_tier("cold", "cold, page cache"),
            "cold, device": lambda: self._in_tier("cold", "cold, device"),
        }
        values = {"full prefill": prefills} | interleaved(rounds, tiers)
        for _ in range(rounds):
            self._move(view.storage_bytes)
        contexts.delete(self.reference)
        name, base = f"{len(view.record.tokens)} tokens", min(prefills)
        rows = [
            row(f"{name}, {case}", found, "ms", f"{base / min(found):.1f} times")
            for case, found in values.items()
        ]
        rows += [
            row(f"{name}, {case}, until its tokens are there", found, "ms")
            for case, found in self.restores_ms.items()
        ]
        megabytes = f"{view.storage_bytes / 1e6:.0f} MB"
        ours = self.bandwidths
        rows += [row(f"{name}, {case}", found, "GB/s", megabytes) for case, found in ours.items()]
        for move, plain in (
            ("warm to hot", "memcpy"),
            ("cold to warm, page cache", "plain read, page cache"),
            ("cold to warm, device", "plain read, device"),
        ):
            case = f"{name}, {move}, bandwidth over {plain}"
            rows.append(ratio_row(case, ours[move], ours[plain], "more"))
        return rows

    def _in_tier(self, tier: str, case: str) -> float:
        self._to(tier)
        if case.endswith("device"):
            _forget(self._files())
        found = self._ask(reuse_prefix=True)
        self.restores_ms.setdefault(case, []).append(found.answer.cache.restore_ms)
        return found.latency_ms

    def _first_token_ms(self) -> float:
        """With the document computed."""
        return self._ask(reuse_prefix=False).latency_ms

    def _ask(self, reuse_prefix: bool) -> QueryResult:
        question = f"What is item {self.num_questions}?"
        self.num_questions += 1
        return self.engine.contexts.query(
            self.reference, question, max_tokens=1, reuse_prefix=reuse_prefix
        )

    def _move(self, num_bytes: int) -> None:
        """One round of moves, each beside what the machine can do."""
        self._to("cold")
        files = self._files()
        plain = np.ones(max(num_bytes, sum(path.stat().st_size for path in files)), np.uint8)
        for where in ("device", "page cache"):
            if where == "device":
                _forget(files)
            self._note(f"cold to warm, {where}", num_bytes, lambda: self._to("warm"))
            self._to("cold")
            if where == "device":
                _forget(files)
            self._note(f"plain read, {where}", num_bytes, lambda: _read(files, plain))
        self._to("warm")
        self._note("warm to hot", num_bytes, lambda: self._to("hot"))
        copy = np.ones(num_bytes, np.uint8)
        self._note("memcpy", num_bytes, lambda: np.copyto(copy, plain[:num_bytes]))

    def _files(self) -> list[Path]:
        return [path for path in self.workspace.rglob("*.kv") if path.is_file()]

    def _to(self, tier: str) -> None:
        self.engine.contexts.move(self.reference, tier)

    def _note(self, name: str, num_bytes: int, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        self.bandwidths.setdefault(name, []).append(num_bytes / 1e9 / seconds)


def _read(files: list[Path], into: np.ndarray) -> None:
    """Reads the files one after the other into memory that is there already."""
    view, end = memoryview(into), 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(view[end : end + CHUNK_BYTES]):
                end += count


def _forget(files: list[Path]) -> None:
    """Takes the files out of the page cache."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
