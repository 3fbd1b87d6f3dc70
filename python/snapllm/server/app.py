"""The application: routes and middleware over an engine."""

from __future__ import annotations

from aiohttp import web

from snapllm.engine import Engine
from snapllm.server import routes_admin, routes_native, routes_openai
from snapllm.server.keys import ENGINE, STATE, ServerState
from snapllm.server.middleware import errors, request_log


async def _clean_up(app: web.Application) -> None:
    app[ENGINE].runner.close_pump()
    app[STATE].loader.shutdown(wait=False)


def create_app(engine: Engine, *, max_body_bytes: int = 64 << 20) -> web.Application:
    """Makes the application that serves an engine; the caller closes the engine."""
    app = web.Application(middlewares=[request_log, errors], client_max_size=max_body_bytes)
    app[ENGINE] = engine
    app[STATE] = ServerState()
    routes_admin.add_routes(app)
    routes_openai.add_routes(app)
    routes_native.add_routes(app)
    app.on_cleanup.append(_clean_up)
    return app
