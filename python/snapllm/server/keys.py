"""What the handlers find in the application."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from aiohttp import web

from snapllm.engine import Engine
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest, CompletionRequest
from snapllm.server.cache_reports import CacheReports
from snapllm.server.options import AppOptions


class ServerState:
    """What is known about the running server beyond the engine. Event loop only."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.is_draining = False
        self.cache_reports = CacheReports()
        # Loading takes seconds: threads of its own, so that it never keeps the
        # formatting of requests waiting.
        self.loader = ThreadPoolExecutor(max_workers=2, thread_name_prefix="snapllm-load")
        self._loading: dict[str, asyncio.Event] = {}

    @property
    def loading(self) -> list[str]:
        """Ids of the models of the command line that are still to be loaded."""
        return list(self._loading)

    def announce(self, model_ids: Sequence[str]) -> None:
        """Says which models are going to be loaded, in this order."""
        self._loading = {model_id: asyncio.Event() for model_id in model_ids}

    def settle(self, model_id: str) -> None:
        """Says that an announced model was loaded, or never will be."""
        self._loading.pop(model_id).set()

    async def ready(self, name: str) -> None:
        """Waits until a model that was announced is loaded.

        Args:
            name: The model, or ``model@context``; without a model the active one is meant,
                which is the first to load.
        """
        if not self._loading:
            return
        model_id = _model_of(name, self._loading)
        if model_id is None and not name.partition("@")[0]:
            model_id = next(iter(self._loading))
        if model_id is not None:
            await self._loading[model_id].wait()


def _model_of(name: str, model_ids: Iterable[str]) -> str | None:
    """The one of the models that is meant by ``model`` or ``model@context``."""
    fitting = (each for each in model_ids if name == each or name.startswith(f"{each}@"))
    return max(fitting, key=len, default=None)


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
    model_ids.update(request.app[STATE].loading)
    return options.resolve(name, model_ids)


async def prepare(request: web.Request, wanted: _Request) -> _Request:
    """The request for the model that its name means, whose load has ended, if it is
    being loaded, and within the namespace of the client."""
    model_id = resolve_model(request, wanted.model)
    await model_ready(request, model_id)
    return msgspec.structs.replace(
        wanted, model=model_id, cache_namespace=cache_namespace_of(request)
    )


async def model_ready(request: web.Request, name: str) -> None:
    """Waits for a model that the server is still starting up with.

    Args:
        name: The model, or ``model@context``; empty = the active one.

    Raises:
        InvalidRequestError: It is an image model.
    """
    engine = engine_of(request)
    if name or engine.active_model is None:
        await request.app[STATE].ready(name)
    image_model = _model_of(name, [model.id for model in engine.image_models()])
    if image_model is not None:
        raise InvalidRequestError(
            f"{image_model} is an image model: it answers /api/v1/diffusion/generate",
            param="model",
        )


async def image_model_ready(request: web.Request, model_id: str) -> None:
    """Waits for an image model that the server is still starting up with.

    Args:
        model_id: The model; empty = the active one, which may be any that is to be loaded.

    Raises:
        InvalidRequestError: It is a text model.
    """
    engine, state = engine_of(request), request.app[STATE]
    if model_id:
        await state.ready(model_id)
        if any(model_id == model.id for model in engine.models()):
            raise InvalidRequestError(
                f"{model_id} is a text model: it draws nothing", param="model"
            )
        return
    for announced in state.loading:
        if engine.active_image_model is not None:
            return
        await state.ready(announced)
