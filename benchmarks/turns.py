"""A growing conversation: what is computed of each turn, with and without reuse."""

from __future__ import annotations

import argparse
from typing import Any

import snapllm
from benchmarks.report import Row, in_turn, row

NUM_TURNS = 12
SYSTEM = "You are a careful assistant that answers in one short sentence. " * 60
NAMES = {False: "computing every turn whole", True: "reusing the turns before"}


def run(options: argparse.Namespace) -> list[Row]:
    """The same conversation twice, turn by turn in turn; from admission to the first token."""
    histories: dict[bool, list[Any]] = {
        reuse: [{"role": "system", "content": SYSTEM}] for reuse in NAMES
    }
    times: dict[bool, list[float]] = {reuse: [] for reuse in NAMES}
    num_computed = dict.fromkeys(NAMES, 0)
    with snapllm.Engine(num_threads=options.threads, workspace=options.scratch) as engine:
        model = engine.load(options.model)
        for turn in range(NUM_TURNS):
            for reuse in in_turn(list(NAMES), turn):
                messages = histories[reuse]
                messages.append({"role": "user", "content": f"What is machine number {turn}?"})
                answer = model.chat(messages, temperature=0, max_tokens=24, reuse_prefix=reuse)
                messages.append({"role": "assistant", "content": answer.content})
                times[reuse].append(answer.timings.prefill_ms)
                num_computed[reuse] += (
                    answer.usage.num_prompt_tokens - answer.usage.num_cached_tokens
                )
        num_written = engine.stats().kv_store.num_written
    rows = [
        row(name, times[reuse][1:], "ms", f"{num_computed[reuse]} prompt tokens computed")
        for reuse, name in NAMES.items()
    ]
    rows.append(row("KV files written a turn", [num_written / NUM_TURNS], "files"))
    return rows
