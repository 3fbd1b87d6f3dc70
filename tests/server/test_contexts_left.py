"""Contexts that nobody waits for any more: clients that leave, a server that ends."""

from __future__ import annotations

import http.client
import json
import re
import resource
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nano_models import make_nano_model
from server_process import Server

API = "/api/v1/contexts"
DOCUMENT = "The vacation policy is 20 days of paid vacation. "


@pytest.fixture(scope="module")
def long_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nano_model(tmp_path_factory.mktemp("m") / "long.gguf", context_size=32768)


@pytest.fixture(scope="module")
def long_server(long_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose contexts take seconds to compute."""
    workspace = str(tmp_path_factory.mktemp("w"))
    server = Server("--model", f"long={long_path}", "--workspace", workspace).start(1)
    try:
        yield server
        assert server.stop() == 0
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)
    finally:
        server.process.kill()


def stats(server: Server) -> dict[str, Any]:
    [found] = server.get("/api/v1/models/cache/stats")["stats"]["models"]
    return found  # type: ignore[no-any-return]


def send_and_leave(server: Server, path: str, body: dict[str, Any]) -> None:
    """Sends a request and leaves once it is being computed."""
    address = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.request("POST", path, json.dumps(body))
    while not stats(server)["requests_running"]:
        time.sleep(0.01)
    connection.close()


def wait_until_idle(server: Server) -> None:
    deadline = time.monotonic() + 3
    while stats(server)["requests_running"]:
        assert time.monotonic() < deadline, "it goes on for nobody"
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
def test_an_ingest_whose_client_leaves_ends_and_leaves_nothing(
    long_server: Server, stream: bool
) -> None:
    cancelled = stats(long_server)["requests_cancelled"]
    body = {"content": DOCUMENT * 600, "model_id": "long", "stream": stream}
    send_and_leave(long_server, f"{API}/ingest", body)
    wait_until_idle(long_server)
    assert stats(long_server)["requests_cancelled"] == cancelled + 1
    assert long_server.get(API)["contexts"] == []


def test_an_append_whose_client_leaves_changes_nothing(long_server: Server) -> None:
    body = {"content": DOCUMENT, "model_id": "long"}
    context_id = long_server.post(f"{API}/ingest", body)["context_id"]
    num_tokens = long_server.get(f"{API}/{context_id}")["token_count"]
    send_and_leave(long_server, f"{API}/{context_id}/append", {"content": DOCUMENT * 600})
    wait_until_idle(long_server)
    assert long_server.get(f"{API}/{context_id}")["token_count"] == num_tokens
    appended = long_server.post(f"{API}/{context_id}/append", {"content": "More."})
    assert appended["cached_tokens"] > 0
    long_server.request("DELETE", f"{API}/{context_id}")


@pytest.mark.parametrize("stream", [False, True])
def test_an_ingest_that_a_shutdown_ends_says_so_once(long_path: Path, stream: bool) -> None:
    server = Server("--model", f"long={long_path}", "--drain-timeout", "0").start(1)
    answers: list[tuple[int, Any, dict[str, str]]] = []
    body = {"content": DOCUMENT * 600, "model_id": "long", "stream": stream}
    asking = threading.Thread(
        target=lambda: answers.append(server.request("POST", f"{API}/ingest", body))
    )
    asking.start()
    while not stats(server)["requests_running"]:
        time.sleep(0.01)
    time.sleep(0.2)
    assert server.stop() == 0
    asking.join(10)
    [(status, answer, _)] = answers
    if stream and status == 200:
        assert json.loads(answer.strip().rpartition("data: ")[2])["error"]["code"] == "closed"
    else:
        assert (status, answer["error"]["code"]) == (503, "closed")
    for words in ("Traceback", "never retrieved", "EngineClosedError"):
        assert not any(words in line for line in server.lines)


def test_neither_formatting_nor_the_servers_end_waits_for_contexts(long_path: Path) -> None:
    server = Server("--model", f"long={long_path}", "--drain-timeout", "1").start(1)
    answers: list[tuple[int, Any, dict[str, str]]] = []

    def ingest(number: int) -> None:
        body = {"content": f"{number} " + DOCUMENT * 300, "model_id": "long"}
        answers.append(server.request("POST", f"{API}/ingest", body))

    # More than are computed at once: the last ones wait for a thread.
    asking = [threading.Thread(target=ingest, args=(i,)) for i in range(24)]
    for thread in asking:
        thread.start()
    while stats(server)["requests_running"] < 2:
        time.sleep(0.02)
    body = {"model": "long", "messages": [{"role": "user", "content": "Hello"}]}
    assert server.post("/v1/messages/count_tokens", body)["input_tokens"] > 0
    assert answers == [], "a count waited for an ingest"
    start = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - start < 15
    for thread in asking:
        thread.join(10)
    refused = [answer["error"]["code"] for status, answer, _ in answers if status != 200]
    assert len(answers) == 24 and len(refused) >= 16 and set(refused) == {"closed"}
    assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)


def test_a_client_that_leaves_in_the_middle_of_a_file_is_no_error(long_server: Server) -> None:
    address = urllib.parse.urlsplit(long_server.url)
    head = (
        f"POST {API}/import?model_id=long HTTP/1.1\r\nHost: x\r\n"
        "x-request-id: half-a-file\r\nContent-Length: 1000000\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        client.sendall(head.encode() + b"x" * 5000)
        time.sleep(0.5)  # so that it is being read
    assert "status=499" in long_server.line_with("id=half-a-file")
    long_server.request("GET", "/health", headers={"x-request-id": "after-it"})
    long_server.line_with("id=after-it")
    assert not any("Traceback" in line for line in long_server.lines)


def test_a_context_that_is_being_downloaded_is_sent_whole_before_the_server_ends(
    tmp_path: Path,
) -> None:
    server = Server("--workspace", str(tmp_path)).start(1)
    try:
        server.post(f"{API}/ingest", {"model_id": "demo", "name": "d", "content": DOCUMENT * 200})
        address = urllib.parse.urlsplit(server.url)
        with socket.socket() as client:
            client.settimeout(30)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.connect((address.hostname, address.port))
            client.sendall(f"GET {API}/d/export HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head, _, data = client.recv(1 << 12).partition(b"\r\n\r\n")
            [length] = re.findall(rb"Content-Length: (\d+)", head)
            assert int(length) > 8 << 20, "all of it is in the buffers on its way"
            server.process.terminate()
            server.wait_for_line("shutting down")
            time.sleep(2.5)  # longer than what has no answer to give is waited for
            received = len(data)
            while piece := client.recv(1 << 20):
                received += len(piece)
        assert received == int(length)
        assert server.process.wait(timeout=20) == 0
    finally:
        server.kill()


def test_a_disk_that_is_full_is_explained_to_whoever_imports(tmp_path: Path) -> None:
    server = Server("--workspace", str(tmp_path / "w")).start(1)
    try:
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100_000, limits[1]))
        status, answer, _ = server.request("POST", f"{API}/import", b"x" * 300_000)
        assert (status, answer["error"]["code"]) == (500, "storage_failed")
        assert "cannot be written to disk: File too large" in answer["error"]["message"]
        assert list((tmp_path / "w" / "contexts" / "transfers").iterdir()) == []
        assert server.stop() == 0
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)
    finally:
        server.process.kill()
