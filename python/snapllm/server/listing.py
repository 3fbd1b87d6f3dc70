"""Which models there are: those that are loaded, and those that are on their way."""

from __future__ import annotations

from aiohttp import web

from snapllm._core import ModelInfo
from snapllm.protocol.listed_models import ListedModel
from snapllm.protocol.native_listing import KnownModels
from snapllm.server.keys import STATE, engine_of


def known_models(request: web.Request) -> KnownModels:
    """The models, of all kinds."""
    engine, state = engine_of(request), request.app[STATE]
    texts = engine.runner.core.models()
    images = [model.info for model in engine.image_models()]
    # One that was just loaded is in the engine before it is settled.
    loaded = {info.id for info in texts} | {info.id for info in images}
    return KnownModels(
        texts=texts,
        images=images,
        coming=[model for model in state.coming if model.id not in loaded],
        active_image_loaded=engine.active_image_model,
    )


def listed_models(request: web.Request) -> list[ListedModel]:
    """All models: text models first, each kind in the order of its loads.

    One that is still to be loaded has the time of the server's start.
    """
    known, started_at = known_models(request), int(request.app[STATE].started_at)
    texts = {info.id: listed_model(info) for info in known.texts}
    images = {info.id: ListedModel(info.id, info.loaded_at_ms // 1000) for info in known.images}
    for model in known.coming:
        kind = images if model.is_image_model else texts
        kind[model.id] = ListedModel(model.id, started_at)
    return list((texts | images).values())


def listed_model(info: ModelInfo) -> ListedModel:
    """A text model that was loaded."""
    return ListedModel(info.id, info.loaded_at_ms // 1000, info.context_size)
