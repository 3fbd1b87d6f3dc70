"""Memory of a server: a model's, a second model's, and of a thousand tokens of context."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.http_load import ask
from benchmarks.peers import Settings, free_port, llama_server, ours, running
from benchmarks.report import Row, ratio_row, row

PROMPT_TOKENS = 2000


def run(options: argparse.Namespace) -> list[Row]:
    """Proportional set sizes after a first request, and what a long prompt adds."""
    settings = Settings(
        models=(("m", options.model),),
        num_threads=options.threads or options.cores,
        num_slots=4,
        context_size=4096,
        flash_attention=options.flash_attention,
    )
    peers: dict[str, Callable[[int], list[str]]] = {
        "snapllm": lambda port: ours(settings, port, None)
    }
    if options.upstream is not None:
        binary = options.upstream / "llama-server"
        peers["llama-server"] = lambda port: llama_server(settings, port, binary)
    rows, loaded = [], {}
    for name, command in peers.items():
        port = free_port()
        with running(name, command(port), options.log(name), port) as peer:
            ask(peer.url, [{"role": "user", "content": "Hello"}], model="m", max_tokens=2)
            loaded[name] = peer.memory_mb()
            words = " ".join(str(i % 10) for i in range(PROMPT_TOKENS))
            ask(peer.url, [{"role": "user", "content": words}], model="m", max_tokens=2)
            more = (peer.memory_mb() - loaded[name]) * 1000 / PROMPT_TOKENS
        rows.append(row(f"{name}, model loaded and used once", [loaded[name]], "MB"))
        rows.append(row(f"{name}, added by 1,000 tokens", [more], "MB"))
    if len(loaded) == 2:
        rows.append(ratio_row("loaded", [loaded["snapllm"]], [loaded["llama-server"]]))
    return rows
