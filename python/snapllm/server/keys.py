"""What the handlers find in the application."""

from __future__ import annotations

import time

from aiohttp import web

from snapllm.engine import Engine


class ServerState:
    """Facts about the running server that `/health` and shutdown share."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.loading: list[str] = []
        """Ids of models that are still to be loaded from the command line."""
        self.is_draining = False


ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)
STATE: web.AppKey[ServerState] = web.AppKey("state", ServerState)


def engine_of(request: web.Request) -> Engine:
    """The engine that serves a request."""
    return request.app[ENGINE]
