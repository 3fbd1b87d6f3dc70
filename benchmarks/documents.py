"""Questions on documents over HTTP: what a server still knows of one, ours and llama-server.

Both get the same chat requests for one token. The document is new; then other questions on it
are asked; then other documents come between; then the server is started again. llama-server
has one slot and its prompt cache in RAM at its default; before it ends its slot is saved to a
file, and what restoring it takes counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import snapllm
from benchmarks.context import document
from benchmarks.http_load import ask
from benchmarks.peers import Peer, Settings, free_port, llama_server, ours, running
from benchmarks.report import Row, in_turn, ratio_row, row

SLOT_FILE = "document.bin"
OTHER_DOCUMENT = 100
"""Words of what comes between."""


@dataclass(frozen=True)
class _Server:
    name: str
    command: Callable[[int], list[str]]
    log: Path
    save: Callable[[str], None] = lambda url: None
    """What it needs before it ends, to know the document in its next life."""
    restore: Callable[[str], None] = lambda url: None

    @contextmanager
    def started(self) -> Iterator[Peer]:
        port = free_port()
        with running(self.name, self.command(port), self.log, port) as peer:
            yield peer


class _Times:
    """Milliseconds by case and server."""

    def __init__(self, servers: Sequence[_Server]) -> None:
        self._names = [server.name for server in servers]
        self._found: dict[str, dict[str, list[float]]] = {}

    def note(self, case: str, server: str, ms: float) -> None:
        of_case = self._found.setdefault(case, {name: [] for name in self._names})
        of_case[server].append(ms)

    def rows(self, prefix: str) -> Iterator[Row]:
        for case, found in self._found.items():
            name = f"{prefix}, {case}"
            for server, values in found.items():
                yield row(f"{name}, {server}", values, "ms")
            if len(found) == 2:
                yield ratio_row(name, *found.values())


def run(options: argparse.Namespace) -> list[Row]:
    """For each length what both servers take, in turn, and the ratios."""
    with snapllm.Engine(num_threads=options.threads) as engine:
        model = engine.load(options.model)
        lengths = [n for n in options.lengths if n + 512 < model.info.context_size]
        texts = [document(lambda text: len(model.tokenize(text)), n) for n in lengths]
        sizes = [len(model.tokenize(text)) for text in texts]
    rows: list[Row] = []
    for size, text in zip(sizes, texts, strict=True):
        settings = Settings(
            models=(("m", options.model),),
            num_threads=options.threads or options.cores,
            num_slots=1,
            context_size=size + 512,
        )
        servers = _servers(settings, options)
        rows += _measure(servers, text, options.rounds).rows(f"{size} tokens")
    return rows


def _servers(settings: Settings, options: argparse.Namespace) -> list[_Server]:
    folder = options.scratch / f"workspace-{settings.context_size}"
    found = [_Server("snapllm", lambda port: ours(settings, port, folder), options.log("ours"))]
    if options.upstream is not None:
        binary = options.upstream / "llama-server"
        found.append(
            _Server(
                "llama-server",
                lambda port: llama_server(settings, port, binary, options.scratch),
                options.log("llama-server"),
                lambda url: _slot(url, "save"),
                lambda url: _slot(url, "restore"),
            )
        )
    return found


def _measure(servers: Sequence[_Server], text: str, rounds: int) -> _Times:
    times = _Times(servers)
    numbers = itertools.count()
    with ExitStack() as stack:
        peers = [stack.enter_context(server.started()) for server in servers]
        for peer in peers:
            _ask(peer.url, "You are short.", "Hello")  # warms up
            times.note("new document", peer.name, _ask(peer.url, text, "What is item 1?"))
        for number in range(rounds):
            for peer in in_turn(peers, number):
                ms = _ask(peer.url, text, f"What is item {number + 2}?")
                times.note("next question", peer.name, ms)
        for number in range(rounds):
            for peer in in_turn(peers, number):
                words = " ".join(str(next(numbers)) for _ in range(OTHER_DOCUMENT))
                _ask(peer.url, words, "Hello")
                ms = _ask(peer.url, text, f"What is item {number + 20}?")
                times.note("after another document", peer.name, ms)
        for server, peer in zip(servers, peers, strict=True):
            server.save(peer.url)
    for number in range(rounds):
        for server in in_turn(servers, number):
            start = time.perf_counter()
            with server.started() as peer:
                ready = time.perf_counter()
                server.restore(peer.url)
                _ask(peer.url, text, f"What is item {number + 40}?")
                end = time.perf_counter()
            times.note("after a restart", server.name, (end - ready) * 1000)
            times.note("start of the process to its answer", server.name, (end - start) * 1000)
    return times


def _ask(url: str, system: str, question: str) -> float:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return ask(url, messages, model="m", temperature=0, max_tokens=1).total_ms


def _slot(url: str, action: str) -> None:
    body = json.dumps({"filename": SLOT_FILE}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/slots/0?action={action}", body, headers)
    with urllib.request.urlopen(request) as response:
        response.read()
