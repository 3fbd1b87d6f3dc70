"""Looks after an engine while its application runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from snapllm.errors import EngineClosedError
from snapllm.server.keys import ENGINE
from snapllm.server.model_events import RESIDENCY_LOG
from snapllm.server.store_log import StoreLog

log = logging.getLogger("snapllm.server")

INTERVAL_S = 1.0


async def watch_engine(app: web.Application) -> AsyncIterator[None]:
    """Writes what the engine does by itself to the log, a second later at most."""
    logs = (app[RESIDENCY_LOG], StoreLog(app[ENGINE]))

    def look() -> bool:
        """False = the engine is closed."""
        try:
            for each in logs:
                each.look()
        except EngineClosedError:
            return False
        except Exception:  # whatever it is: the next look must come
            log.exception("a look at the engine failed")
        return True

    async def loop() -> None:
        while look():
            await asyncio.sleep(INTERVAL_S)

    task = asyncio.create_task(loop())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    look()  # what was done since
