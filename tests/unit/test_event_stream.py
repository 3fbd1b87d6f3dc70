"""Streams of events keep themselves alive, and stop doing so with the answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from snapllm.server.connections import Connection
from snapllm.server.sse import EventStream


@pytest.mark.parametrize("turns", range(6))
def test_a_stream_ends_though_its_client_will_send_no_more_just_then(turns: int) -> None:
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    async def run() -> None:
        server = web.Server(lambda request: web.Response())  # type: ignore[arg-type]
        connection = Connection(server, loop=asyncio.get_running_loop())
        request: Any = SimpleNamespace(protocol=connection)
        response: Any = SimpleNamespace(write=write)
        keeper = asyncio.create_task(EventStream(request, response, b":").keep_alive())
        await asyncio.sleep(0.01)
        connection.client_ended.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        keeper.cancel()
        done, _ = await asyncio.wait([keeper], timeout=10)
        assert keeper in done and keeper.cancelled()

    asyncio.run(run())
    assert len(written) <= 1
