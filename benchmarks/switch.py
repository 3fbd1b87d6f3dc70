"""What it takes to switch between resident models, and to answer right after."""

from __future__ import annotations

import argparse
import time

import snapllm
from benchmarks.report import Row, row


def run(options: argparse.Namespace) -> list[Row]:
    """Two copies of the model, both resident; a request to each in turn."""
    with snapllm.Engine(num_threads=options.threads) as engine:
        models = [engine.load(options.model, name, context_size=2048) for name in ("a", "b")]
        switches: list[float] = []
        same: list[float] = []
        other: list[float] = []
        for model in models:
            _first_token_ms(model)
        for i in range(options.rounds * 20):
            start = time.perf_counter()
            engine.switch("ab"[i % 2])
            switches.append((time.perf_counter() - start) * 1e6)
            other.append(_first_token_ms(models[i % 2]))
            same.append(_first_token_ms(models[i % 2]))
    return [
        row("switch", switches, "us"),
        row("first token, same model again", same, "ms"),
        row("first token, other model than before", other, "ms"),
    ]


def _first_token_ms(model: snapllm.Model) -> float:
    start = time.perf_counter()
    model.generate("One two three four", max_tokens=1, reuse_prefix=False)
    return (time.perf_counter() - start) * 1000
