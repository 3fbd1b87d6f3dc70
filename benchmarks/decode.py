"""Decoding and prefill speed, beside upstream's llama-bench on the same file and threads."""

from __future__ import annotations

import argparse
import json
import subprocess

import snapllm
from benchmarks.report import Row, row

NUM_TOKENS = 128
PROMPT_TOKENS = 512


def run(options: argparse.Namespace) -> list[Row]:
    """One stream; tokens are as many as llama-bench's own defaults."""
    with snapllm.Engine(num_threads=options.threads) as engine:
        model = engine.load(options.model, num_threads=options.threads)
        threads = model.info.num_threads
        prompt = [i % 200 for i in range(PROMPT_TOKENS)]
        decode: list[float] = []
        prefill: list[float] = []
        for _ in range(options.rounds + 1):
            result = model.generate(
                prompt[:1],
                max_tokens=NUM_TOKENS,
                temperature=0,
                ignore_eos=True,
                reuse_prefix=False,
            )
            decode.append((NUM_TOKENS - 1) * 1000 / result.timings.decode_ms)
            result = model.generate(prompt, max_tokens=1, reuse_prefix=False)
            prefill.append(PROMPT_TOKENS * 1000 / result.timings.prefill_ms)
    rows = [
        row(f"decode, {threads} threads", decode[1:], "tokens/s"),
        row(f"prefill of {PROMPT_TOKENS}, {threads} threads", prefill[1:], "tokens/s"),
    ]
    if options.upstream is not None:
        rows += _upstream(options, threads)
    return rows


def _upstream(options: argparse.Namespace, threads: int) -> list[Row]:
    # fmt: off
    command = [
        options.upstream / "llama-bench", "-m", options.model, "-t", threads, "-fa", "0",
        "-p", PROMPT_TOKENS, "-n", NUM_TOKENS, "-r", options.rounds, "-o", "json",
    ]
    # fmt: on
    output = subprocess.run([str(part) for part in command], capture_output=True, check=True)
    rows = []
    for result in json.loads(output.stdout):
        name = "prefill" if result["n_prompt"] else "decode"
        rows.append(row(f"llama-bench {name}", result["samples_ts"], "tokens/s"))
    return rows
