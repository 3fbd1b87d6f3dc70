"""Memory of a server: of a loaded model, and of a thousand tokens of context."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.http_load import ask
from benchmarks.peers import Settings, free_port, llama_server, ours, running
from benchmarks.report import Row, in_turn, ratio_row, row

PROMPT_WORDS = 1000


def run(options: argparse.Namespace) -> list[Row]:
    """Proportional set sizes after a first request, and what a long prompt adds."""
    settings = Settings(
        models=(("m", options.model),),
        num_threads=options.threads or options.cores,
        num_slots=4,
        context_size=4096,
    )
    folder = options.scratch / "workspace"
    peers: dict[str, Callable[[int], list[str]]] = {
        "snapllm": lambda port: ours(settings, port, folder)
    }
    if options.upstream is not None:
        binary = options.upstream / "llama-server"
        peers["llama-server"] = lambda port: llama_server(settings, port, binary)
    loaded: dict[str, list[float]] = {name: [] for name in peers}
    added: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(options.rounds):
        for name, command in in_turn(list(peers.items()), number):
            port = free_port()
            with running(name, command(port), options.log(name), port) as peer:
                ask(peer.url, [{"role": "user", "content": "Hello"}], model="m", max_tokens=2)
                loaded[name].append(peer.memory_mb())
                words = " ".join(str((i + number) % 10) for i in range(PROMPT_WORDS))
                messages = [{"role": "user", "content": words}]
                answer = ask(peer.url, messages, model="m", max_tokens=2)
                more = peer.memory_mb() - loaded[name][-1]
                added[name].append(more * 1000 / (answer.num_prompt - answer.num_cached))
    rows = []
    for name in peers:
        rows.append(row(f"{name}, model loaded and used once", loaded[name], "MB"))
        rows.append(row(f"{name}, added by 1,000 tokens", added[name], "MB"))
    if len(peers) == 2:
        rows.append(ratio_row("loaded", *loaded.values()))
        rows.append(ratio_row("added", *added.values()))
    return rows
