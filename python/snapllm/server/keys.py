"""What the handlers find in the application."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from snapllm._threads import Threads
from snapllm.engine import Engine
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest, CompletionRequest
from snapllm.protocol.native_listing import ComingModel
from snapllm.server.cache_reports import CacheReports
from snapllm.server.coming import ComingModels, model_of
from snapllm.server.kept_responses import KeptResponses
from snapllm.server.options import AppOptions
from snapllm.server.places import Places
from snapllm.server.request_facts import RequestFacts, facts_of

NUM_TRANSFERS = 16
"""Context files that come in at once, and that go out."""


class ServerState:
    """What is known about the running server beyond the engine. Event loop only."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self.is_draining = False
        self.cache_reports = CacheReports()
        self.responses = KeptResponses()
        self.startup = ComingModels()
        """Those of the command line: the server ends where one cannot be loaded."""
        self.loads = ComingModels()
        """Those that clients asked for."""
        self.receiving, self.sending = Places(NUM_TRANSFERS), Places(NUM_TRANSFERS)
        """For context files that are on their way."""
        self.in_flight: set[RequestFacts] = set()
        """Requests whose handlers run."""
        self.stand_in: str | None = None
        """The model that is served because the command line names none: the first that is loaded
        and generates text becomes active in its place."""

    @property
    def coming(self) -> list[ComingModel]:
        """All models that are still to be loaded."""
        return [*self.startup.models, *self.loads.models]

    async def ready(self, name: str) -> None:
        """Waits for a model that is still to be loaded; see `ComingModels.ready`."""
        await self.startup.ready(name)
        await self.loads.ready(name)

    async def first(
        self, is_there: Callable[[], bool], fits: Callable[[ComingModel], bool]
    ) -> None:
        """Waits for the first model of a kind; see `ComingModels.first`."""
        await self.startup.first(is_there, fits)
        await self.loads.first(is_there, fits)

    def is_preparing(self) -> bool:
        """Whether a request waits for something else than answers that the engine knows of: it may
        be formatted, wait for a model to come back, or be a file that is being sent or received."""
        return any(
            facts.is_drained and len(facts.answers) < facts.num_expected for facts in self.in_flight
        )

    def give_up(self) -> None:
        """Says that the server ends: nobody waits for a model any more."""
        self.startup.give_up()
        self.loads.give_up()


_Request = TypeVar("_Request", bound=ChatRequest | CompletionRequest)

OPTIONS: web.AppKey[AppOptions] = web.AppKey("options", AppOptions)
ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)
STATE: web.AppKey[ServerState] = web.AppKey("state", ServerState)


def engine_of(request: web.Request) -> Engine:
    """The engine that serves a request."""
    return request.app[ENGINE]


def threads_of(request: web.Request) -> Threads:
    """Where what must not keep the event loop waiting is done."""
    return engine_of(request).runner.threads


def cache_namespace_of(request: web.Request) -> str:
    """Whose prompts may be reused for a request: those of the same API key."""
    return facts_of(request).cache_namespace


def loaded_ids(engine: Engine) -> set[str]:
    """The ids of the models of all kinds that the engine has, in memory or evicted."""
    return {model.id for model in engine.models()} | {model.id for model in engine.image_models()}


def resolve_model(request: web.Request, name: str) -> str:
    """The model, or ``model@context``, that a client's name means; see `AppOptions.resolve`."""
    options, engine = request.app[OPTIONS], engine_of(request)
    if not options.aliases:
        return name
    coming_ids = {model.id for model in request.app[STATE].coming}
    return options.resolve(name, loaded_ids(engine) | coming_ids)


async def prepare(request: web.Request, wanted: _Request) -> _Request:
    """The request for the model that its name means, whose load has ended, if it is
    being loaded, and within the namespace of the client."""
    facts_of(request).model_field = wanted.model_field
    model_id = resolve_model(request, wanted.model)
    await model_ready(request, model_id)
    return msgspec.structs.replace(
        wanted, model=model_id, cache_namespace=cache_namespace_of(request)
    )


async def until_loaded(request: web.Request, name: str) -> None:
    """Waits for a model that is still to be loaded.

    Args:
        name: The model, or ``model@context``; without a model the active text model is meant,
            which is the first to be loaded.

    Raises:
        EngineClosedError: The server ends before.
    """
    state = request.app[STATE]
    await state.ready(name)
    if not name.partition("@")[0]:
        await state.first(*_first_text_model(request))


async def until_started(request: web.Request, model_id: str) -> None:
    """Waits until the models of the command line have what is theirs: this id, if it is one of
    theirs, and the place of the active text model.

    Raises:
        EngineClosedError: The server ends before.
    """
    startup = request.app[STATE].startup
    await startup.ready(model_id)
    await startup.first(*_first_text_model(request))


def _first_text_model(
    request: web.Request,
) -> tuple[Callable[[], bool], Callable[[ComingModel], bool]]:
    core = engine_of(request).runner.core
    # One that only computes embeddings is active just until one that generates is there.
    return (
        lambda: any(info.supports_generation for info in core.models()),
        lambda coming: not coming.is_image_model,
    )


async def model_ready(request: web.Request, name: str, field: str = "model") -> None:
    """Waits for a text model, see `until_loaded`.

    Args:
        name: The model, or ``model@context``.
        field: What the request calls it, for errors.

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
            param=field,
        )


async def image_model_ready(request: web.Request, model_id: str) -> None:
    """Waits for an image model that is still to be loaded.

    Args:
        model_id: The model; empty = the active one, which is the first to be loaded.

    Raises:
        InvalidRequestError: It is a text model.
        EngineClosedError: The server ends before.
    """
    engine, state = engine_of(request), request.app[STATE]
    if model_id:
        await state.ready(model_id)
        if any(model_id == model.id for model in engine.models()):
            raise InvalidRequestError(
                f"{model_id} is a text model: it draws nothing", param="model"
            )
        return
    await state.first(
        lambda: engine.active_image_model is not None, lambda coming: coming.is_image_model
    )
