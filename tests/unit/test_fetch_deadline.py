"""A fetch ends in time, whichever of its steps a host draws out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from snapllm._fetch import UrlFetcher
from snapllm.errors import InvalidRequestError

TIMEOUT_S = 0.5
BEGINNINGS = {
    "nothing": b"",
    "the status": b"HTTP/1.1 20",
    "a header": b"HTTP/1.1 200 OK\r\nX-Slow: ",
    "the body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
}
TLS_BEGINNINGS = {"nothing": b"", "the handshake": b"\x16\x03\x03\x40\x00\x02\x00\x3f\xf0"}

Serve = Callable[[bytes], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a host that sends a beginning and then a byte at a time; returns its port."""
    with contextlib.ExitStack() as open_until_the_end:

        def start(beginning: bytes) -> int:
            listener = open_until_the_end.enter_context(socket.create_server(("127.0.0.1", 0)))

            def trickle() -> None:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(beginning)
                    while beginning:
                        time.sleep(0.05)
                        connection.sendall(b"a")
                    connection.recv(1 << 20)
                    connection.recv(1 << 20)

            threading.Thread(target=trickle, daemon=True).start()
            port: int = listener.getsockname()[1]
            return port

        yield start


def assert_ends_in_time(url: str) -> None:
    fetch = UrlFetcher(["127.0.0.1"], timeout_s=TIMEOUT_S, is_allowed_address=lambda _: True)
    start = time.monotonic()
    with pytest.raises(InvalidRequestError, match="timed out"):
        fetch(url)
    assert time.monotonic() - start < 3 * TIMEOUT_S


@pytest.mark.parametrize("what", BEGINNINGS)
def test_a_host_that_trickles(serve: Serve, what: str) -> None:
    assert_ends_in_time(f"http://127.0.0.1:{serve(BEGINNINGS[what])}/a.png")


@pytest.mark.parametrize("what", TLS_BEGINNINGS)
def test_a_host_that_draws_out_the_handshake(serve: Serve, what: str) -> None:
    assert_ends_in_time(f"https://127.0.0.1:{serve(TLS_BEGINNINGS[what])}/a.png")


def test_a_name_that_takes_long_to_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def look_up(*_: Any, **__: Any) -> list[Any]:
        go_on.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert_ends_in_time("http://127.0.0.1/a.png")
    go_on.set()


def test_a_name_that_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(InvalidRequestError, match="not known"):
        UrlFetcher(["127.0.0.1"])("http://127.0.0.1/a.png")
