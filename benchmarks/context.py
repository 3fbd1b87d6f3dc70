"""Time to the first token of a question to a context: by tier, and with a full prefill."""

from __future__ import annotations

import argparse
import random
import time

import snapllm
from benchmarks.report import Row, interleaved, row
from snapllm.contexts import ContextManager


def run(options: argparse.Namespace) -> list[Row]:
    """Documents of several lengths; the ratio to the full prefill is in the note."""
    rows: list[Row] = []
    with snapllm.Engine(num_threads=options.threads, workspace=options.scratch) as engine:
        model = engine.load(options.model)
        lengths = [n for n in options.lengths if n + 256 < model.info.context_size]
        for length in lengths:
            rows += _measure(engine, model, length, options.rounds)
    return rows


def _measure(engine: snapllm.Engine, model: snapllm.Model, length: int, rounds: int) -> list[Row]:
    contexts = engine.contexts
    view = contexts.ingest(_document(model, length), model.id)
    reference, num_tokens = view.record.id, len(view.record.tokens)
    questions = iter(range(10_000))

    def cached(tier: str) -> float:
        contexts.move(reference, tier)
        return _first_token_ms(contexts, reference, f"What is item {next(questions)}?", True)

    def plain() -> float:
        return _first_token_ms(contexts, reference, f"What is item {next(questions)}?", False)

    values = interleaved(
        rounds,
        {
            "full prefill": plain,
            "hot": lambda: cached("hot"),
            "warm": lambda: cached("warm"),
            "cold": lambda: cached("cold"),
        },
    )
    contexts.delete(reference)
    base = min(values["full prefill"])
    return [
        row(f"{num_tokens} tokens, {name}", v, "ms", f"{base / min(v):.1f} times")
        for name, v in values.items()
    ]


def _first_token_ms(contexts: ContextManager, reference: str, question: str, reuse: bool) -> float:
    start = time.perf_counter()
    contexts.query(reference, question, max_tokens=1, reuse_prefix=reuse)
    return (time.perf_counter() - start) * 1000


def _document(model: snapllm.Model, length: int) -> str:
    rng = random.Random(length)
    words: list[str] = []
    while len(model.tokenize(" ".join(words))) < length:
        words += [f"Item {len(words)} is {rng.randrange(1000)}." for _ in range(20)]
    return " ".join(words)
