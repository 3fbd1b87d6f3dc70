"""A growing conversation: time to the first token of each turn, with and without reuse."""

from __future__ import annotations

import argparse

import snapllm
from benchmarks.report import Row, row

NUM_TURNS = 12
SYSTEM = "You are a careful assistant that answers in one short sentence. " * 60


def run(options: argparse.Namespace) -> list[Row]:
    """The same conversation, turn by turn, reusing the turns before or not."""
    rows: list[Row] = []
    with snapllm.Engine(num_threads=options.threads) as engine:
        model = engine.load(options.model)
        for reuse in (False, True):
            messages = [{"role": "system", "content": SYSTEM}]
            times: list[float] = []
            num_computed = 0
            for turn in range(NUM_TURNS):
                messages.append({"role": "user", "content": f"What is machine number {turn}?"})
                answer = model.chat(messages, temperature=0, max_tokens=24, reuse_prefix=reuse)
                messages.append({"role": "assistant", "content": answer.content})
                times.append(answer.timings.prefill_ms)
                num_computed += answer.usage.num_prompt_tokens - answer.usage.num_cached_tokens
            name = "reusing the turns before" if reuse else "computing every turn whole"
            rows.append(row(name, times[1:], "ms", f"{num_computed} prompt tokens computed"))
    return rows
