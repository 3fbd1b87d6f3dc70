"""The server's removal of expired contexts."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import pytest
from aiohttp import web

from snapllm._threads import Threads
from snapllm.engine import Engine
from snapllm.errors import EngineClosedError, StorageError
from snapllm.server import app as server_app
from snapllm.server.keys import ENGINE


class FakeEngine:
    """An engine whose contexts cannot be removed, for passing reasons and then for good."""

    def __init__(self) -> None:
        self.contexts = self.runner = self
        self.threads = Threads(max_waiting=1)
        self.errors: list[Exception] = [
            StorageError("disk"),
            RuntimeError("bug"),
            EngineClosedError("closed"),
        ]

    def remove_expired(self) -> int:
        raise self.errors.pop(0)


def test_expiry_outlives_every_failure_and_ends_quietly_with_the_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_app, "EXPIRY_INTERVAL_S", 0.001)
    engine = FakeEngine()

    async def run() -> None:
        app = web.Application()
        app[ENGINE] = cast(Engine, engine)
        async for _ in server_app._expire_contexts(app):
            while engine.errors:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)

    with caplog.at_level(logging.WARNING, "snapllm.server"):
        asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == [
        "expired contexts cannot be removed: disk",
        "expired contexts cannot be removed",
    ]
