"""A server that is killed at random moments loses nothing that it acknowledged.

Environment: SNAPLLM_KILL_ROUNDS is how often it is killed (default 4).
"""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from pathlib import Path

import pytest
from server_process import Server

API = "/api/v1/contexts"
ROUNDS = int(os.environ.get("SNAPLLM_KILL_ROUNDS", "4"))


def document(number: int) -> str:
    rng = random.Random(number)
    facts = [f"Item {rng.randrange(10_000)} costs {rng.randrange(100)} dollars." for _ in range(40)]
    return f"List {number}. " + " ".join(facts)


class Client(threading.Thread):
    """Ingests, moves and deletes contexts until the server is gone."""

    def __init__(self, server: Server, seed: int, kept: dict[str, int], gone: set[str]) -> None:
        super().__init__()
        self._server, self._rng, self._kept, self._gone = server, random.Random(seed), kept, gone
        self.is_killed = threading.Event()
        """Set before the server is: what fails without it is a fault of the server."""
        self.failures: list[BaseException] = []

    def run(self) -> None:
        try:
            while True:
                self._step()
        except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
            if not self.is_killed.is_set():
                self.failures.append(error)

    def _step(self) -> None:
        number = self._rng.randrange(10**9)
        body = {"content": document(number), "model_id": "demo"}
        context_id = self._server.post(f"{API}/ingest", body)["context_id"]
        self._kept[context_id] = number
        if self._rng.random() < 0.5:
            self._server.post(f"{API}/{context_id}/demote", {"tier": "cold"})
        if self._rng.random() < 0.3:
            del self._kept[context_id]  # what is not acknowledged may be either
            status, _, _ = self._server.request("DELETE", f"{API}/{context_id}")
            if status == 200:
                self._gone.add(context_id)


@pytest.mark.slow
def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    rng = random.Random(6)
    kept: dict[str, int] = {}
    gone: set[str] = set()
    options = ("--workspace", str(tmp_path / "w"))
    for round_number in range(ROUNDS):
        server = Server(*options).start(1)
        clients = [Client(server, 10 * round_number + i, kept, gone) for i in range(3)]
        for client in clients:
            client.start()
        time.sleep(rng.uniform(0.3, 2.0))
        for client in clients:
            client.is_killed.set()
        server.kill()
        for client in clients:
            client.join(30)
        assert [client.failures for client in clients] == [[]] * len(clients)
    server = Server(*options).start(1)
    try:
        found = {c["context_id"]: c for c in server.get(API)["contexts"]}
        assert kept, "nothing was ingested"
        assert kept.keys() <= found.keys()
        assert not gone & found.keys()
        for context_id in rng.sample(sorted(kept), min(len(kept), 20)):
            answer = server.post(f"{API}/{context_id}/query", {"query": "x", "max_tokens": 4})
            assert answer["cache_hit"] is True
            whole = server.post(
                "/v1/chat/completions",
                {
                    "model": "demo",
                    "temperature": 0,
                    "max_tokens": 4,
                    "messages": [
                        {"role": "system", "content": document(kept[context_id])},
                        {"role": "user", "content": "x"},
                    ],
                },
            )
            assert answer["response"] == whole["choices"][0]["message"]["content"]
    finally:
        assert server.stop() == 0
