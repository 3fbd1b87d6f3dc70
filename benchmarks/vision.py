"""What pictures cost: their first tokens, and the texts that stream beside them."""

from __future__ import annotations

import argparse
import itertools
import threading
import time

import numpy as np

import snapllm
from benchmarks.http_load import percentile
from benchmarks.report import Row, row

QUESTION = "What is in this image?"


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)


def _gaps_ms(model: snapllm.Model, num_tokens: int) -> list[float]:
    """The times between the tokens of a streamed text."""
    prompt = "Once upon a time there was a machine that"
    times = [
        time.perf_counter()
        for _ in model.generate(
            prompt, max_tokens=num_tokens, ignore_eos=True, temperature=0, stream=True
        )
    ]
    return [(b - a) * 1000 for a, b in itertools.pairwise(times)]


def run(options: argparse.Namespace) -> list[Row]:
    """Always the demo model and its eyes, whatever `--model` says."""
    num_tokens = options.tokens * 8
    rows: list[Row] = []
    with snapllm.Engine(num_threads=options.threads) as engine:
        model = engine.load_demo(context_size=4096)
        first, again = [], []
        for seed in range(options.rounds * 4):
            for times in (first, again):
                start = time.perf_counter()
                model.chat(QUESTION, images=[_picture(seed)], max_tokens=1, temperature=0)
                times.append((time.perf_counter() - start) * 1000)
        rows.append(row("first token about a new picture", first, "ms"))
        rows.append(row("first token about the same picture again", again, "ms"))

        done = threading.Event()
        num_asked = 0

        def ask() -> None:
            nonlocal num_asked
            while not done.is_set():
                num_asked += 1
                model.chat(
                    QUESTION, images=[_picture(1000 + num_asked)], max_tokens=1, temperature=0
                )

        alone: list[list[float]] = []
        beside: list[list[float]] = []
        for _ in range(options.rounds):
            alone.append(_gaps_ms(model, num_tokens))
            done.clear()
            asker = threading.Thread(target=ask)
            asker.start()
            beside.append(_gaps_ms(model, num_tokens))
            done.set()
            asker.join()
    for share in (0.5, 0.99):
        name = f"ITL p{share * 100:.0f} of a text"
        rows.append(row(f"{name}, alone", [percentile(gaps, share) for gaps in alone], "ms"))
        note = f"{num_asked} pictures"
        values = [percentile(gaps, share) for gaps in beside]
        rows.append(row(f"{name}, while new pictures come in", values, "ms", note))
    return rows
