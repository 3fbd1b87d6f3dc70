"""Streams over HTTP: throughput, time to first token, inter-token latency, side by side."""

from __future__ import annotations

import argparse
import asyncio
import random
from contextlib import ExitStack

from benchmarks.http_load import Load, closed_loop
from benchmarks.peers import Peer, Settings, free_port, llama_server, ours, running
from benchmarks.report import Row, ratio_row, row

REQUESTS_PER_STREAM = 2


def run(options: argparse.Namespace) -> list[Row]:
    """Both servers are up, one of them works at a time; the peers take turns."""
    settings = Settings(
        models=(("m", options.model),),
        num_threads=options.threads or options.cores,
        num_slots=max(options.streams),
        context_size=2048,
        flash_attention=options.flash_attention,
    )
    rows: list[Row] = []
    with ExitStack() as stack:
        peers = []
        port = free_port()
        command = ours(settings, port, None)
        peers.append(stack.enter_context(running("snapllm", command, options.log("ours"), port)))
        if options.upstream is not None:
            port = free_port()
            command = llama_server(settings, port, options.upstream / "llama-server")
            log = options.log("llama-server")
            peers.append(stack.enter_context(running("llama-server", command, log, port)))
        for num_streams in options.streams:
            rows += _measure(peers, num_streams, options)
    return rows


def _measure(peers: list[Peer], num_streams: int, options: argparse.Namespace) -> list[Row]:
    loads: dict[str, list[Load]] = {peer.name: [] for peer in peers}
    for number in range(options.rounds + 1):
        for peer in peers:
            load = asyncio.run(
                closed_loop(
                    peer.url,
                    num_streams,
                    [_messages(number, i) for i in range(num_streams * REQUESTS_PER_STREAM)],
                    model="m",
                    temperature=0,
                    max_tokens=options.tokens,
                )
            )
            if number > 0:  # the first warms up
                loads[peer.name].append(load)
    rows = []
    figures = {
        "throughput": ("tokens/s", lambda load: load.tokens_per_second),
        "TTFT p50": ("ms", lambda load: load.ttft_ms(0.5)),
        "TTFT p99": ("ms", lambda load: load.ttft_ms(0.99)),
        "ITL p50": ("ms", lambda load: load.itl_ms(0.5)),
        "ITL p99": ("ms", lambda load: load.itl_ms(0.99)),
    }
    for figure, (unit, read) in figures.items():
        values = {name: [read(load) for load in found] for name, found in loads.items()}
        name = f"{num_streams} streams, {figure}"
        rows += [row(f"{name}, {peer}", found, unit) for peer, found in values.items()]
        if len(values) == 2:
            rows.append(ratio_row(name, values["snapllm"], values["llama-server"]))
    return rows


def _messages(number: int, i: int) -> list[dict[str, str]]:
    """A prompt of its own for each request, so that no cache helps either."""
    rng = random.Random(number * 1000 + i)
    words = " ".join(rng.choice(("red", "blue", "one", "two", "cat", "dog")) for _ in range(60))
    return [{"role": "user", "content": f"{number} {i}: {words}. What comes next?"}]
