"""Connections that cannot be accepted."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Any

import pytest

from snapllm.server.accept_errors import AcceptErrors


def test_one_line_says_that_connections_wait(caplog: pytest.LogCaptureFixture) -> None:
    handle, loop = AcceptErrors(), asyncio.new_event_loop()
    context: dict[str, Any] = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, "Too many open files"),
    }
    with caplog.at_level(logging.WARNING):
        handle(loop, context)
        handle(loop, context)
    loop.close()
    assert len(caplog.records) == 1
    assert "Too many open files" in caplog.text


def test_a_try_after_the_end_is_not_told_and_other_errors_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """asyncio tries again a second later, whatever became of the socket."""

    async def try_again() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(AcceptErrors())
        closed = socket.socket()
        closed.close()
        loop.call_soon(loop._start_serving, asyncio.Protocol, closed)  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        assert caplog.records == []
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    asyncio.run(try_again())
    assert "ZeroDivisionError" in caplog.text
