"""Decoding and prefill speed, beside upstream's llama-bench on the same file and threads."""

from __future__ import annotations

import argparse
import json
import subprocess

import snapllm
from benchmarks.report import Row, in_turn, ratio_row, row

NUM_TOKENS = 128
PROMPT_TOKENS = 512


def run(options: argparse.Namespace) -> list[Row]:
    """One stream; tokens are as many as llama-bench's own defaults. The peers take turns."""
    ours: dict[str, list[float]] = {"decode": [], "prefill": []}
    theirs: dict[str, list[float]] = {"decode": [], "prefill": []}
    with snapllm.Engine() as engine:
        threads = options.threads or options.cores
        model = engine.load(options.model, num_threads=threads, context_size=2048)
        for number in range(3 * options.rounds + 1):
            for figures, measure in in_turn([(ours, _ours), (theirs, _upstream)], number):
                if measure is _upstream and options.upstream is None:
                    continue
                found = measure(options, model)
                if number > 0:  # the first warms up
                    for name, value in found.items():
                        figures[name].append(value)
    rows = []
    for name in ours:
        what = f"{name} of {NUM_TOKENS if name == 'decode' else PROMPT_TOKENS}, {threads} threads"
        rows.append(row(f"{what}, snapllm", ours[name], "tokens/s"))
        if theirs[name]:
            rows.append(row(f"{what}, llama-bench", theirs[name], "tokens/s"))
            rows.append(ratio_row(what, ours[name], theirs[name], "more"))
    return rows


def _ours(_: argparse.Namespace, model: snapllm.Model) -> dict[str, float]:
    prompt = [i % 200 for i in range(PROMPT_TOKENS)]
    model.generate(prompt, max_tokens=NUM_TOKENS, reuse_prefix=False)  # warms up
    answer = model.generate(
        prompt[:1], max_tokens=NUM_TOKENS, temperature=0, ignore_eos=True, reuse_prefix=False
    )
    decode = (NUM_TOKENS - 1) * 1000 / answer.timings.decode_ms
    answer = model.generate(prompt, max_tokens=1, reuse_prefix=False)
    return {"decode": decode, "prefill": PROMPT_TOKENS * 1000 / answer.timings.prefill_ms}


def _upstream(options: argparse.Namespace, model: snapllm.Model) -> dict[str, float]:
    command = [
        *(str(options.upstream / "llama-bench"), "-m", str(options.model), "-r", "2"),
        *("-t", str(model.info.num_threads), "-fa", str(int(model.info.flash_attention))),
        *("-p", str(PROMPT_TOKENS), "-n", str(NUM_TOKENS), "-o", "json"),
    ]
    output = subprocess.run(command, capture_output=True, check=True)
    return {
        "prefill" if result["n_prompt"] else "decode": result["samples_ts"][-1]  # first: warms up
        for result in json.loads(output.stdout)
    }
