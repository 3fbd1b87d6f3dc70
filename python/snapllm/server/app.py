"""The application: routes and middleware over an engine."""

from __future__ import annotations

from aiohttp import web

from snapllm.engine import Engine
from snapllm.server import (
    routes_admin,
    routes_anthropic,
    routes_completions,
    routes_contexts,
    routes_diffusion,
    routes_embeddings,
    routes_models,
    routes_native,
    routes_openai,
    routes_responses,
)
from snapllm.server.access import add_headers, allow_origins, authenticate, check_host
from snapllm.server.keys import ENGINE, OPTIONS, STATE, ServerState
from snapllm.server.log_lines import request_log
from snapllm.server.middleware import errors
from snapllm.server.model_events import RESIDENCY_LOG, ResidencyLog
from snapllm.server.options import AppOptions
from snapllm.server.watch import watch_engine


def create_app(engine: Engine, options: AppOptions | None = None) -> web.Application:
    """Makes the application that serves an engine; the caller closes the engine."""
    options = options or AppOptions()
    app = web.Application(
        middlewares=[request_log, check_host, allow_origins, errors, authenticate],
        client_max_size=options.max_body_bytes,
    )
    app[OPTIONS] = options
    app[ENGINE] = engine
    app[STATE] = ServerState()
    app[RESIDENCY_LOG] = ResidencyLog(engine)
    routes_admin.add_routes(app)
    routes_openai.add_routes(app)
    routes_completions.add_routes(app)
    routes_responses.add_routes(app)
    routes_embeddings.add_routes(app)
    routes_anthropic.add_routes(app)
    routes_native.add_routes(app)
    routes_models.add_routes(app)
    routes_diffusion.add_routes(app)
    routes_contexts.add_routes(app)
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(watch_engine)
    return app
