"""What the server says about itself."""

from __future__ import annotations

import contextlib
import functools
import time

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from snapllm import __version__
from snapllm._threads import run_apart
from snapllm.errors import SnapLLMError
from snapllm.metrics import EngineCollector
from snapllm.protocol.error_codes import ApiError
from snapllm.protocol.native_listing import is_in_memory
from snapllm.protocol.server_facts import (
    AnswerCacheReport,
    HealthAnswer,
    HelloAnswer,
    IndexAnswer,
    RequestCacheAnswer,
)
from snapllm.server.coming import model_of
from snapllm.server.keys import ENGINE, STATE, cache_namespace_of, engine_of, loaded_ids
from snapllm.server.listing import known_models
from snapllm.server.middleware import json_response, refuse

REGISTRY: web.AppKey[CollectorRegistry] = web.AppKey("registry", CollectorRegistry)


async def index(request: web.Request) -> web.Response:
    """GET /"""
    body: IndexAnswer = {
        "name": "SnapLLM",
        "version": __version__,
        "description": "Local inference server for many models",
        "docs": "/docs",
        "openapi": "/openapi.json",
        "endpoints": sorted(
            {
                route.resource.canonical
                for route in request.app.router.routes()
                if route.resource is not None
            }
        ),
    }
    return json_response(msgspec.json.encode(body))


async def health(request: web.Request) -> web.Response:
    """GET /health"""
    state, known = request.app[STATE], known_models(request)
    body: HealthAnswer = {
        "status": "ok",
        "version": __version__,
        "models_loaded": [info.id for info in known.loaded if is_in_memory(info)],
        "models_loading": [model.id for model in known.coming],
        "active_model": known.active,
        "uptime_s": round(time.time() - state.started_at, 3),
    }
    return json_response(msgspec.json.encode(body))


async def hello(_request: web.Request) -> web.Response:
    """GET /api/hello, by which Claude Code looks for the server when it starts"""
    body: HelloAnswer = {"message": "hello"}
    return json_response(msgspec.json.encode(body))


@functools.cache
def _description() -> bytes:
    from snapllm.protocol.openapi import openapi_document  # only here: it makes many types

    return msgspec.json.encode(openapi_document())


@functools.cache
def _page() -> str:
    from snapllm.protocol.openapi import docs_page  # as above

    return docs_page()


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json"""
    # To make it takes longer than a stream's tokens may wait.
    return json_response(await run_apart(_description))


async def docs(request: web.Request) -> web.Response:
    """GET /docs"""
    return web.Response(text=await run_apart(_page), content_type="text/html")


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics"""
    text = generate_latest(request.app[REGISTRY])
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def request_cache(request: web.Request) -> web.Response:
    """GET /api/v1/requests/{request_id}/cache"""
    request_id = request.match_info["request_id"]
    reports = request.app[STATE].cache_reports.find(cache_namespace_of(request), request_id)
    if reports is None:
        unknown = ApiError("not_found", f"Request not found: {request_id}", "request_id")
        return refuse(request, unknown)
    answers: list[AnswerCacheReport] = [
        {**report, "cached_text": _text(request, report["model"], report["cached_token"])}
        for report in reports
    ]
    body: RequestCacheAnswer = {"status": "success", "request_id": request_id, "answers": answers}
    return json_response(msgspec.json.encode(body))


def _text(request: web.Request, name: str, token: int | None) -> str | None:
    """The text of a cached token, while its model (or ``model@context``) is in memory."""
    engine = engine_of(request)
    model_id = model_of(name, loaded_ids(engine))
    if token is None or model_id is None:
        return None
    with contextlib.suppress(SnapLLMError):
        text = engine.runner.core.detokenize(model_id, [token], may_wait=False)
        return text.decode(errors="replace")
    return None


def add_routes(app: web.Application) -> None:
    """Adds the endpoints about the server."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(app[ENGINE]))
    app[REGISTRY] = registry
    app.router.add_get("/", index)
    app.router.add_get("/health", health)
    app.router.add_get("/api/hello", hello)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/openapi.json", openapi)
    app.router.add_get("/docs", docs)
    app.router.add_get("/api/v1/requests/{request_id}/cache", request_cache)
