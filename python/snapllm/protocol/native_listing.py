"""The native API: the lists of models, of all kinds, and what they say of each.

The specification fixes the fields of these endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Literal, TypeAlias

import msgspec
from typing_extensions import NotRequired, TypedDict

from snapllm._core import ModelInfo
from snapllm.diffusion import ImageModelInfo

_encode = msgspec.json.encode

ModelState: TypeAlias = Literal["resident", "loading", "evicting", "evicted"]


class ComingModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is still to be loaded, as far as its options and its file tell."""

    id: str
    type: Literal["llm", "vision", "diffusion"]
    file_path: str
    file_bytes: int

    @property
    def is_image_model(self) -> bool:
        """Whether it draws; all others are text models."""
        return self.type == "diffusion"


class KnownModels(msgspec.Struct, frozen=True, kw_only=True):
    """The models of a server: each is in one of the lists."""

    texts: list[ModelInfo]
    images: list[ImageModelInfo]
    coming: list[ComingModel]
    """In the order in which they are loaded."""
    active_image_loaded: str | None
    """The active one among `images`."""

    @property
    def loaded(self) -> list[ModelInfo | ImageModelInfo]:
        """Those of both kinds that the engine has, in memory or evicted."""
        return [*self.texts, *self.images]

    @property
    def active(self) -> str | None:
        """Where text requests go that name no model: those wait for the first to come."""
        loaded = next((info.id for info in self.texts if info.active), None)
        return loaded or self._first_to_come(is_image_model=False)

    @property
    def active_image(self) -> str | None:
        """The same for images."""
        return self.active_image_loaded or self._first_to_come(is_image_model=True)

    def _first_to_come(self, *, is_image_model: bool) -> str | None:
        of_kind = (each.id for each in self.coming if each.is_image_model == is_image_model)
        return next(of_kind, None)


class ModelEntry(TypedDict):
    """A model of the list."""

    id: str
    name: str
    type: Literal["llm", "vision", "embedding", "diffusion"]
    quantization: str
    """Empty where the kind has none, and before the model is loaded."""
    size_gb: float
    active: bool
    loaded_at: str | None
    """None: it is still to be loaded."""
    state: ModelState
    pinned: bool
    file_path: str
    # Of all that are loaded:
    num_threads: NotRequired[int]
    load_time_ms: NotRequired[float]
    # Of text models:
    architecture: NotRequired[str]
    context_size: NotRequired[int]
    train_context_size: NotRequired[int]
    kv_cells: NotRequired[int]
    max_sequences: NotRequired[int]
    gpu_layers: NotRequired[int]
    flash_attention: NotRequired[bool]
    draft_tokens: NotRequired[int]
    num_parameters: NotRequired[int]
    weights_mb: NotRequired[float]
    kv_mb: NotRequired[float]
    projector_mb: NotRequired[float]
    compute_mb: NotRequired[float]
    # Of image models:
    memory_mb: NotRequired[float]
    upscale_factor: NotRequired[int]
    requests_waiting: NotRequired[int]
    requests_running: NotRequired[int]
    worker_starts: NotRequired[int]
    files: NotRequired[dict[str, str]]


class OneModel(TypedDict):
    """The body of GET /api/v1/models/{model_id}."""

    model: ModelEntry


class ModelList(TypedDict):
    """The body of GET /api/v1/models."""

    models: list[ModelEntry]
    active_model: str | None
    active_image_model: str | None
    total_loaded: int


def megabytes(num_bytes: int) -> float:
    """Bytes as the API gives amounts of memory."""
    return round(num_bytes / 1e6, 3)


def _gigabytes(num_bytes: int) -> float:
    return round(num_bytes / 1e9, 6)


def is_in_memory(info: ModelInfo | ImageModelInfo) -> bool:
    """Whether a model counts as loaded; an evicted one does not until it is back."""
    return info.state in ("resident", "evicting")


def num_in_memory(models: Sequence[ModelInfo | ImageModelInfo]) -> int:
    """How many of the models count as loaded."""
    return sum(map(is_in_memory, models))


def _iso_time(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def type_of(info: ModelInfo) -> Literal["llm", "vision", "embedding"]:
    """A text model's type, as the list has it."""
    if not info.supports_generation:
        return "embedding"
    return "vision" if info.mmproj_path else "llm"


def _model_entry(info: ModelInfo) -> ModelEntry:
    """One model of the list."""
    return {
        "id": info.id,
        "name": info.name,
        "type": type_of(info),
        "quantization": info.quantization,
        "size_gb": _gigabytes(info.file_bytes),
        "active": info.active,
        "loaded_at": _iso_time(info.loaded_at_ms),
        "state": info.state,
        "pinned": info.pinned,
        "architecture": info.architecture,
        "context_size": info.context_size,
        "train_context_size": info.train_context_size,
        "kv_cells": info.kv_cells,
        "max_sequences": info.max_sequences,
        "gpu_layers": info.gpu_layers,
        "num_threads": info.num_threads,
        "flash_attention": info.flash_attention,
        "draft_tokens": info.draft_tokens,
        "num_parameters": info.num_parameters,
        "weights_mb": megabytes(info.weights_bytes),
        "kv_mb": megabytes(info.kv_bytes),
        "projector_mb": megabytes(info.projector_bytes),
        "compute_mb": megabytes(info.compute_bytes),
        "load_time_ms": round(info.load_ms, 3),
        "file_path": info.path,
    }


def _image_model_entry(info: ImageModelInfo, is_active: bool) -> ModelEntry:
    """One image model of the list; it is active among its kind."""
    return {
        "id": info.id,
        "name": info.id,
        "type": "diffusion",
        "quantization": "",
        "size_gb": _gigabytes(info.file_bytes),
        "active": is_active,
        "loaded_at": _iso_time(info.loaded_at_ms),
        "state": info.state,
        "pinned": info.pinned,
        "memory_mb": megabytes(info.memory_bytes),
        "num_threads": info.num_threads,
        "upscale_factor": info.upscale_factor,
        "requests_waiting": info.num_waiting,
        "requests_running": info.num_running,
        "worker_starts": info.num_starts,
        "load_time_ms": round(info.load_ms, 3),
        "file_path": info.path,
        "files": info.files,
    }


def _coming_entry(model: ComingModel, is_active: bool) -> ModelEntry:
    """One model of the list that is still to be loaded."""
    return {
        "id": model.id,
        "name": model.id,
        "type": model.type,
        "quantization": "",
        "size_gb": _gigabytes(model.file_bytes),
        "active": is_active,
        "loaded_at": None,
        "state": "loading",
        "pinned": False,
        "file_path": model.file_path,
    }


def model_entries(known: KnownModels) -> list[ModelEntry]:
    """The list: text models, then image models, each kind in the order of its loads."""
    texts = [_model_entry(info) for info in known.texts]
    images = [_image_model_entry(info, info.id == known.active_image) for info in known.images]
    for model in known.coming:
        if model.is_image_model:
            images.append(_coming_entry(model, model.id == known.active_image))
        else:
            texts.append(_coming_entry(model, model.id == known.active))
    return texts + images


def model_object(entry: ModelEntry) -> bytes:
    """The body of GET /api/v1/models/{id}."""
    body: OneModel = {"model": entry}
    return _encode(body)


def models_object(known: KnownModels) -> bytes:
    """The body of GET /api/v1/models; models that are evicted or still to come are in the list,
    but not loaded."""
    body: ModelList = {
        "models": model_entries(known),
        "active_model": known.active,
        "active_image_model": known.active_image,
        "total_loaded": num_in_memory(known.loaded),
    }
    return _encode(body)
