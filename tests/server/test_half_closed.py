"""Clients that end what they send and wait for the answer, and clients that do so by leaving."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from nano_models import make_nano_model
from server_process import Server
from waiting import wait_until

import snapllm
from snapllm.server import connections
from snapllm.server.app import create_app

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Hello"}]
NEVER_ENDS = {str(number): -100 for number in range(262, 265)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = make_nano_model(tmp_path_factory.mktemp("long") / "llama.gguf", context_size=32768)
    server = Server("--model", f"llama={path}")
    try:
        yield server.start(1)
        assert server.stop() == 0
    finally:
        server.kill()


def sent(server: Server, body: dict[str, Any], version: str = "1.1", cut: int = 0) -> socket.socket:
    """A connection over which a request was sent, but for its last bytes."""
    address = urllib.parse.urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    data = json.dumps({"model": "llama", "messages": QUESTION, "temperature": 0} | body).encode()
    head = f"POST {CHAT} HTTP/{version}\r\nHost: {address.netloc}\r\n"
    connection.sendall(
        f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[: len(data) - cut]
    )
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes, without the 100s before the answer."""
    with connection, connection.makefile("rb") as file:
        data = file.read()
    while data.startswith(b"HTTP/1.1 100 "):
        data = data.partition(b"\r\n\r\n")[2]
    return data


def counts(server: Server) -> tuple[int, int]:
    """Requests that run or wait, and requests that were cancelled."""
    [model] = server.get("/api/v1/models/cache/stats")["stats"]["models"]
    busy = model["requests_running"] + model["requests_waiting"]
    return busy, model["requests_cancelled"]


def test_a_stream_ends_with_its_connection_where_http_has_no_other_end(server: Server) -> None:
    address = urllib.parse.urlsplit(server.url)
    body = {"model": "llama", "messages": QUESTION, "max_tokens": 2, "stream": True}
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {len(data)}\r\n\r\n"
    connection = socket.create_connection((address.hostname, address.port), timeout=10)
    connection.sendall(head.encode() + data)
    answer = read_all(connection)
    assert b"keep-alive" not in answer.partition(b"\r\n\r\n")[0].lower()
    assert answer.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_will_send_no_more_gets_its_answer(server: Server, stream: bool) -> None:
    body = {"max_tokens": 2000, "logit_bias": NEVER_ENDS, "stream": stream}
    connection = sent(server, body)
    connection.shutdown(socket.SHUT_WR)
    head, _, answer = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    if stream:
        assert b"data: [DONE]" in answer
    else:
        assert json.loads(answer)["usage"]["completion_tokens"] == 2000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("num_words", [1, 4000])
def test_a_client_that_has_left_is_noticed(server: Server, stream: bool, num_words: int) -> None:
    _, cancelled = counts(server)
    words = f"{stream} {num_words} " + "word " * num_words
    body = {"messages": [{"role": "user", "content": words}], "logit_bias": NEVER_ENDS}
    with sent(server, body | {"max_tokens": 4000, "stream": stream}):
        wait_until(lambda: counts(server)[0] > 0)
    wait_until(lambda: counts(server) == (0, cancelled + 1), "its request still runs")


def test_a_client_that_waits_and_then_leaves_is_noticed(server: Server) -> None:
    _, cancelled = counts(server)
    with sent(server, {"max_tokens": 30_000, "logit_bias": NEVER_ENDS}) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(12) == b"HTTP/1.1 100"
        assert counts(server)[0] == 1
    wait_until(lambda: counts(server) == (0, cancelled + 1), "its request still runs")


def test_what_came_before_the_end_is_answered_in_turn(server: Server) -> None:
    address = urllib.parse.urlsplit(server.url)
    request = f"GET /health HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n"
    for _ in range(100):  # a look at the connection may come between two of them
        connection = socket.create_connection((address.hostname, address.port), timeout=30)
        connection.sendall(request.encode() * 3)
        connection.shutdown(socket.SHUT_WR)
        with connection, connection.makefile("rb") as file:
            assert file.read().count(b'"uptime_s"') == 3


def test_nobody_waits_for_the_rest_of_a_body_that_will_not_come(server: Server) -> None:
    address = urllib.parse.urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=5)
    head = f"POST /v1/no HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 100000\r\n\r\n"
    connection.sendall(head.encode() + b"{" * 100)
    connection.shutdown(socket.SHUT_WR)
    # aiohttp itself would wait for ten seconds.
    assert b" 404 " in read_all(connection)


def test_half_a_request_has_no_answer(server: Server) -> None:
    connection = sent(server, {}, cut=5)
    connection.shutdown(socket.SHUT_WR)
    assert read_all(connection) == b""


def test_the_end_of_an_old_client_is_its_leave(server: Server) -> None:
    _, cancelled = counts(server)
    connection = sent(server, {"max_tokens": 30_000, "logit_bias": NEVER_ENDS}, version="1.0")
    wait_until(lambda: counts(server)[0] > 0)
    connection.shutdown(socket.SHUT_WR)
    assert read_all(connection) == b""
    wait_until(lambda: counts(server) == (0, cancelled + 1), "its request still runs")


def test_the_same_holds_for_a_later_request_of_a_connection(server: Server) -> None:
    connection = sent(server, {"max_tokens": 1})
    while b'"finish_reason"' not in connection.recv(65536):
        pass
    data = json.dumps({"prompt": "Hello", "max_tokens": 500, "logit_bias": NEVER_ENDS}).encode()
    head = (
        f"POST /api/v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)
    connection.shutdown(socket.SHUT_WR)
    assert read_all(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_a_client_that_asks_nothing_is_not_waited_for(
    engine: snapllm.Engine, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connections, "FIRST_REQUEST_S", 1.0)

    async def run() -> None:
        runner = web.AppRunner(create_app(engine))
        await runner.setup()
        site = connections.Site(runner, "127.0.0.1", 0)
        await site.bind()
        await site.start()
        address = runner.addresses[0][:2]
        asking, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        silent, silent_writer = await asyncio.open_connection(*address)
        silent_writer.write(begun)
        assert await asyncio.wait_for(silent.read(), 20) == b""
        # Who has asked may ask again.
        assert b" 200 " in await asking.readuntil(b"\r\n")
        assert not asking.at_eof()
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(asking.read(), 20)
        for each in (writer, silent_writer):
            each.close()
        await runner.cleanup()

    asyncio.run(run())
