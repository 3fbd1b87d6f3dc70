"""Streams over HTTP: throughput, time to first token, inter-token latency, side by side."""

from __future__ import annotations

import argparse
import asyncio
import random
from contextlib import ExitStack

from benchmarks.http_load import Load, closed_loop
from benchmarks.peers import (
    Peer,
    Settings,
    free_port,
    llama_cpp_python,
    llama_server,
    ours,
    running,
)
from benchmarks.report import Better, Row, in_turn, ratio_row, row

REQUESTS_PER_STREAM = 4
LEAST_REQUESTS = 16
MAX_CACHED = 32
"""Tokens that a prompt may have in common with another: the template's beginning."""


def run(options: argparse.Namespace) -> list[Row]:
    """The servers are up, one of them works at a time; they take turns."""
    settings = Settings(
        models=(("m", options.model),),
        num_threads=options.threads or options.cores,
        num_slots=max(options.streams),
        context_size=2048,
    )
    workspace = options.scratch / "workspace"
    commands = {"snapllm": lambda port: ours(settings, port, workspace)}
    if options.upstream is not None:
        binary = options.upstream / "llama-server"
        commands["llama-server"] = lambda port: llama_server(settings, port, binary)
    if options.llama_cpp_python is not None:
        python = options.llama_cpp_python
        commands["llama-cpp-python"] = lambda port: llama_cpp_python(settings, port, python)
    rows: list[Row] = []
    with ExitStack() as stack:
        peers = []
        for name, command in commands.items():
            port = free_port()
            peers.append(stack.enter_context(running(name, command(port), options.log(name), port)))
        for num_streams in options.streams:
            rows += _measure(peers, num_streams, options)
    return rows


def _measure(peers: list[Peer], num_streams: int, options: argparse.Namespace) -> list[Row]:
    loads: dict[str, list[Load]] = {peer.name: [] for peer in peers}
    for number in range(options.rounds + 1):
        for peer in in_turn(peers, number):
            load = asyncio.run(_load(peer, num_streams, number, options.tokens))
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
        for peer, found in list(values.items())[1:]:
            better: Better = "more" if figure == "throughput" else "less"
            rows.append(ratio_row(f"{name}, over {peer}", values["snapllm"], found, better))
    return rows


async def _load(peer: Peer, num_streams: int, number: int, num_tokens: int) -> Load:
    count = max(num_streams * REQUESTS_PER_STREAM, LEAST_REQUESTS)
    chats = [_messages(f"{num_streams} {number} {i}") for i in range(count)]
    load = await closed_loop(
        peer.url, num_streams, chats, model="m", temperature=0, max_tokens=num_tokens
    )
    if any(answer.num_cached > MAX_CACHED for answer in load.answers):
        raise RuntimeError(f"{peer.name} had a prompt in its cache that was to be new")
    return load


def _messages(name: str) -> list[dict[str, str]]:
    """A prompt of its own for each request, so that no cache helps either."""
    rng = random.Random(name)
    words = " ".join(rng.choice(("red", "blue", "one", "two", "cat", "dog")) for _ in range(60))
    return [{"role": "user", "content": f"{words}. What comes next?"}]
