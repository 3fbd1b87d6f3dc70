"""What a long prompt does to the streams that run beside it."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time

import snapllm
from benchmarks.http_load import percentile
from benchmarks.report import Row, row

NUM_STREAMS = 8
PROMPT_TOKENS = 4000


def run(options: argparse.Namespace) -> list[Row]:
    """Eight streams decode in process, in every other round while a long prompt comes in."""
    with snapllm.Engine(num_threads=options.threads) as engine:
        model = engine.load(options.model, context_size=PROMPT_TOKENS + 1024)
        asyncio.run(_round(model, options.tokens, 0, None))  # warms up
        alone: list[list[float]] = []
        beside: list[list[float]] = []
        prefills: list[float] = []
        for number in range(1, options.rounds + 1):
            alone.append(asyncio.run(_round(model, options.tokens * 4, number, None)))
            beside.append(asyncio.run(_round(model, options.tokens * 4, number, prefills)))
        unhindered = [_prefill_ms(model, 1000 + number) for number in range(options.rounds)]
    rows = []
    for share in (0.5, 0.99):
        name = f"ITL p{share * 100:.0f} of {NUM_STREAMS} streams"
        for what, rounds in (("alone", alone), (f"beside {PROMPT_TOKENS} tokens", beside)):
            rows.append(row(f"{name}, {what}", [percentile(gaps, share) for gaps in rounds], "ms"))
    rows.append(row(f"{PROMPT_TOKENS} tokens, beside the streams", prefills, "ms"))
    rows.append(row(f"{PROMPT_TOKENS} tokens, alone", unhindered, "ms"))
    return rows


def _prompt(number: int) -> list[int]:
    return [(number + i * i) % 200 for i in range(PROMPT_TOKENS)]


def _prefill_ms(model: snapllm.Model, number: int) -> float:
    answer = model.generate(_prompt(number), max_tokens=1, reuse_prefix=False)
    return answer.timings.prefill_ms


async def _round(
    model: snapllm.Model, num_tokens: int, number: int, prefills: list[float] | None
) -> list[float]:
    """The gaps between tokens of all streams; with a list, only of while the prompt came in."""
    begin, end = 0.0, float("inf")

    async def stream(i: int) -> list[float]:
        chunks = model.agenerate_stream(
            f"Stream {number} {i}: one two three", max_tokens=num_tokens, ignore_eos=True
        )
        return [time.perf_counter() async for _ in chunks]

    streams = [asyncio.ensure_future(stream(i)) for i in range(NUM_STREAMS)]
    if prefills is not None:
        await asyncio.sleep(0.1)  # they are under way
        begin = time.perf_counter()
        answer = await model.agenerate(_prompt(number), max_tokens=1, reuse_prefix=False)
        prefills.append(answer.timings.prefill_ms)
        end = time.perf_counter()
    times = await asyncio.gather(*streams)
    return [
        (b - a) * 1000
        for of_stream in times
        for a, b in itertools.pairwise(of_stream)
        if begin <= b <= end
    ]
