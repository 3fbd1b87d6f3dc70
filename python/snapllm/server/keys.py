"""What the handlers find in the application."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from aiohttp import web

from snapllm.engine import Engine
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest, CompletionRequest
from snapllm.server.cache_reports import CacheReports
from snapllm.server.options import AppOptions
from snapllm.server.startup import Startup, model_of


class ServerState:
    """What is known about the running server beyond the engine. Event loop only."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.is_draining = False
        self.cache_reports = CacheReports()
        # Loading takes seconds: threads of its own, so that it never keeps the
        # formatting of requests waiting.
        self.loader = ThreadPoolExecutor(max_workers=2, thread_name_prefix="snapllm-load")
        self.startup = Startup()


_Request = TypeVar("_Request", bound=ChatRequest | CompletionRequest)

OPTIONS: web.AppKey[AppOptions] = web.AppKey("options", AppOptions)
ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)
STATE: web.AppKey[ServerState] = web.AppKey("state", ServerState)


def engine_of(request: web.Request) -> Engine:
    """The engine that serves a request."""
    return request.app[ENGINE]


def cache_namespace_of(request: web.Request) -> str:
    """Whose prompts may be reused for a request: those of the same API key."""
    namespace: str = request.get("cache_namespace", "")
    return namespace


def resolve_model(request: web.Request, name: str) -> str:
    """The model, or ``model@context``, that a client's name means; see `AppOptions.resolve`."""
    options, engine = request.app[OPTIONS], engine_of(request)
    if not options.aliases:
        return name
    model_ids = {model.id for model in engine.models()}
    model_ids.update(model.id for model in engine.image_models())
    model_ids.update(model.id for model in request.app[STATE].startup.models)
    return options.resolve(name, model_ids)


async def prepare(request: web.Request, wanted: _Request) -> _Request:
    """The request for the model that its name means, whose load has ended, if it is
    being loaded, and within the namespace of the client."""
    model_id = resolve_model(request, wanted.model)
    await model_ready(request, model_id)
    return msgspec.structs.replace(
        wanted, model=model_id, cache_namespace=cache_namespace_of(request)
    )


async def until_loaded(request: web.Request, name: str) -> None:
    """Waits for a model that the server is still starting up with.

    Args:
        name: The model, or ``model@context``; without a model the active text model is meant,
            which is the first to be loaded.

    Raises:
        EngineClosedError: The server ends before.
    """
    engine, startup = engine_of(request), request.app[STATE].startup
    await startup.ready(name)
    if not name.partition("@")[0]:
        await startup.first(
            lambda: engine.active_model is not None, lambda coming: not coming.is_image_model
        )


async def model_ready(request: web.Request, name: str) -> None:
    """Waits for a text model, see `until_loaded`.

    Raises:
        InvalidRequestError: It is an image model.
        EngineClosedError: The server ends before.
    """
    await until_loaded(request, name)
    engine = engine_of(request)
    image_model = model_of(name, [model.id for model in engine.image_models()])
    if image_model is not None:
        raise InvalidRequestError(
            f"{image_model} is an image model: it answers /api/v1/diffusion/generate",
            param="model",
        )


async def image_model_ready(request: web.Request, model_id: str) -> None:
    """Waits for an image model that the server is still starting up with.

    Args:
        model_id: The model; empty = the active one, which is the first to be loaded.

    Raises:
        InvalidRequestError: It is a text model.
        EngineClosedError: The server ends before.
    """
    engine, startup = engine_of(request), request.app[STATE].startup
    if model_id:
        await startup.ready(model_id)
        if any(model_id == model.id for model in engine.models()):
            raise InvalidRequestError(
                f"{model_id} is a text model: it draws nothing", param="model"
            )
        return
    await startup.first(
        lambda: engine.active_image_model is not None, lambda coming: coming.is_image_model
    )
