"""The native endpoints of the models."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from aiohttp import web

from snapllm import _core
from snapllm._threads import run_apart
from snapllm.diffusion import ImageModel, ImageModelInfo
from snapllm.engine import Engine
from snapllm.errors import (
    EngineClosedError,
    InvalidModelError,
    InvalidRequestError,
    ModelFileNotFoundError,
    ModelNotFoundError,
)
from snapllm.model import Model
from snapllm.params import LoadOptions
from snapllm.protocol import native_model_answers as answers
from snapllm.protocol import native_models as native
from snapllm.protocol.native_listing import ComingModel, model_entries, model_object, models_object
from snapllm.server.bodies import read_body
from snapllm.server.coming import coming_model
from snapllm.server.keys import (
    OPTIONS,
    STATE,
    ServerState,
    engine_of,
    loaded_ids,
    resolve_model,
    until_loaded,
    until_started,
)
from snapllm.server.listing import known_models
from snapllm.server.middleware import json_response
from snapllm.server.model_events import RESIDENCY_LOG, log_loaded, log_switched, log_unloaded
from snapllm.server.request_facts import facts_of
from snapllm.server.warm_up import warm_up


async def load_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/load"""
    facts_of(request).is_drained = False
    wanted = await read_body(request, native.parse_load)
    engine = engine_of(request)
    if alias := request.app[OPTIONS].alias_of(wanted.model_id):
        raise InvalidRequestError(
            f"model_id: {wanted.model_id} is an alias of {alias} here, whom requests for it would "
            "still reach: load it under another id",
            param="model_id",
        )
    # What the command line names goes first: it has its id, and is the active model.
    await until_started(request, wanted.model_id)
    coming = await engine.runner.threads.files.run(
        coming_model,
        wanted.model_id,
        Path(wanted.file_path),
        model_type=wanted.model_type,
        has_projector=bool(wanted.mmproj_path),
        has_parts=bool(wanted.image_parts()),
    )
    # A client that leaves does not stop a load that others may wait for.
    info = await asyncio.shield(
        asyncio.ensure_future(_load_listed(request.app, engine, wanted, coming))
    )
    if isinstance(info, ImageModelInfo):
        is_active = engine.active_image_model == info.id
        return json_response(answers.loaded_image_object(info, is_active))
    return json_response(answers.loaded_object(info))


async def _load_listed(
    app: web.Application, engine: Engine, wanted: native.LoadRequest, coming: ComingModel
) -> _core.ModelInfo | ImageModelInfo:
    """Loads a model, which is listed as loading meanwhile.

    One that the engine has already is not: it answers on, whatever becomes of another load.
    """
    is_known, threads = coming.id in loaded_ids(engine), engine.runner.threads
    with contextlib.nullcontext() if is_known else app[STATE].loads.loading(coming):
        # Of one that is loaded, what is not said is left open.
        defaults = LoadOptions() if is_known else app[OPTIONS].load_defaults
        model = await threads.loading.run(_load, engine, wanted, coming.is_image_model, defaults)
    try:
        info = model.info
    except ModelNotFoundError:
        reason = f"model {coming.id} was unloaded as soon as it was loaded"
        raise EngineClosedError(reason) from None
    if not is_known:
        app[RESIDENCY_LOG].look()  # what was evicted for it went before
        log_loaded(info)
        if _replaces_stand_in(app[STATE], engine, info):
            engine.switch(info.id)
            log_switched(info.id)
            info = model.info
    return info


def _replaces_stand_in(
    state: ServerState, engine: Engine, info: _core.ModelInfo | ImageModelInfo
) -> bool:
    """Whether a model that was loaded becomes active in the place of one that nobody asked for."""
    if isinstance(info, ImageModelInfo) or not info.supports_generation:
        return False
    stand_in, state.stand_in = state.stand_in, None
    return stand_in not in (None, info.id) and stand_in == engine.active_model


def _load(
    engine: Engine, wanted: native.LoadRequest, is_image: bool, defaults: LoadOptions
) -> Model | ImageModel:
    try:
        if not is_image:
            options = native.load_options(wanted, defaults)
            model = engine.load(wanted.file_path, wanted.model_id, **options)
            warm_up(engine, model.id)
            return model
        return engine.load_diffusion(
            wanted.file_path, wanted.model_id, **native.image_load_options(wanted)
        )
    except (InvalidRequestError, ModelFileNotFoundError, InvalidModelError) as error:
        error.param = wanted.field_at_fault(error)
        raise


async def switch_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/switch"""
    model_id = resolve_model(request, await read_body(request, native.parse_model_id))
    engine, state = engine_of(request), request.app[STATE]
    await until_loaded(request, model_id)
    start = time.perf_counter()
    engine.switch(model_id)
    state.stand_in = None
    switch_ms = (time.perf_counter() - start) * 1000
    log_switched(model_id)
    images = {info.id: info.state for info in known_models(request).images}
    residency = images.get(model_id) or engine.model(model_id).info.state
    return json_response(answers.switched_object(model_id, residency, switch_ms))


async def unload_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/unload"""
    # By its very id: a * that stands for anything must not unload a model.
    model_id = await read_body(request, native.parse_model_id)
    state, engine = request.app[STATE], engine_of(request)
    # Cut short, the load of one of the command line's models would end the server.
    await state.startup.ready(model_id)
    try:
        await run_apart(engine.unload, model_id)
    except ModelNotFoundError:
        if all(coming.id != model_id for coming in state.loads.models):
            raise
        # Its load waits for others, or is at its files: the engine has nothing to cut short.
        await state.loads.ready(model_id)
        await run_apart(engine.unload, model_id)
    log_unloaded(model_id)
    return json_response(answers.unloaded_object(model_id))


async def list_models(request: web.Request) -> web.Response:
    """GET /api/v1/models"""
    return json_response(models_object(known_models(request)))


async def get_model(request: web.Request) -> web.Response:
    """GET /api/v1/models/{id}"""
    model_id = resolve_model(request, request.match_info["model_id"])
    for entry in model_entries(known_models(request)):
        if entry["id"] == model_id:
            return json_response(model_object(entry))
    raise ModelNotFoundError(f"Model not found: {model_id}")


async def pin_model(request: web.Request) -> web.Response:
    """POST /api/v1/models/pin"""
    wanted = await read_body(request, native.parse_pin)
    wanted.model_id = resolve_model(request, wanted.model_id)
    await until_loaded(request, wanted.model_id)
    engine = engine_of(request)
    (engine.pin if wanted.pinned else engine.unpin)(wanted.model_id)
    return json_response(answers.pinned_object(wanted))


async def cache_stats(request: web.Request) -> web.Response:
    """GET /api/v1/models/cache/stats"""
    known, (stats, totals) = known_models(request), engine_of(request).totals.read()
    return json_response(answers.cache_stats_object(known.texts, known.images, stats, totals))


def add_routes(app: web.Application) -> None:
    """Adds the endpoints."""
    app.router.add_get("/api/v1/models", list_models)
    app.router.add_post("/api/v1/models/load", load_model)
    app.router.add_post("/api/v1/models/switch", switch_model)
    app.router.add_post("/api/v1/models/unload", unload_model)
    app.router.add_post("/api/v1/models/pin", pin_model)
    app.router.add_get("/api/v1/models/cache/stats", cache_stats)
    # The paths above take no GET, and must not be taken for models.
    taken = "|".join(("load", "switch", "unload", "pin"))
    app.router.add_get(f"/api/v1/models/{{model_id:(?!(?:{taken})$).+}}", get_model)
