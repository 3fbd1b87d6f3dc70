"""The native API: what it says of the models when they are loaded, switched, counted.

The specification fixes the fields of these endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from typing_extensions import NotRequired, TypedDict

from snapllm._core import EngineStats, ModelInfo, ModelStats
from snapllm.diffusion import ImageModelInfo
from snapllm.protocol.native_listing import ModelState, megabytes, num_in_memory, type_of
from snapllm.protocol.native_models import PinRequest
from snapllm.totals import Totals

_encode = msgspec.json.encode


class LoadedModel(TypedDict):
    """The body of POST /api/v1/models/load."""

    status: Literal["success"]
    message: str
    model: str
    model_type: Literal["Text LLM", "Vision LLM", "Embedding", "Diffusion"]
    load_time_ms: float
    active: bool
    context_size: NotRequired[int]
    """Of a text model."""


class SwitchedModel(TypedDict):
    """The body of POST /api/v1/models/switch."""

    status: Literal["success"]
    message: str
    model: str
    switch_time_ms: float
    state: ModelState


class PinnedModel(TypedDict):
    """The body of POST /api/v1/models/pin."""

    status: Literal["success"]
    message: str
    model: str
    pinned: bool


class UnloadedModel(TypedDict):
    """The body of POST /api/v1/models/unload."""

    status: Literal["success"]
    message: str


class ModelCounts(TypedDict):
    """What was counted of a text model since it was loaded."""

    id: str
    resident: bool
    loads: int
    evictions: int
    requests: int
    requests_running: int
    requests_waiting: int
    requests_cancelled: int
    requests_failed: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    embedded_tokens: int
    draft_tokens: int
    accepted_draft_tokens: int
    stopped_steps: int
    preemptions: int
    kv_cells_used: int
    mean_batch_tokens: float
    mean_batch_sequences: float
    mean_queue_ms: float
    mean_ttft_ms: float
    mean_itl_ms: float


class CacheCounts(TypedDict):
    """The counts that the specification has."""

    total_models_loaded: int
    gpu_memory_used_mb: float
    cpu_memory_used_mb: float
    cache_hits: int
    cache_misses: int
    hit_rate: float


class AllCacheCounts(CacheCounts):
    """These, and what is added to them."""

    memory_budget_mb: float
    snapshot_memory_mb: float
    external_memory_mb: float
    evictions: int
    reloads: int
    switches: int
    kv_files_damaged: int
    kv_read_failures: int
    kv_write_failures: int
    models: list[ModelCounts]


class CacheStatsAnswer(CacheCounts):
    """The body of GET /api/v1/models/cache/stats."""

    stats: AllCacheCounts


_TYPE_NAMES: dict[str, Literal["Text LLM", "Vision LLM", "Embedding"]] = {
    "llm": "Text LLM",
    "vision": "Vision LLM",
    "embedding": "Embedding",
}


def loaded_image_object(info: ImageModelInfo, is_active: bool) -> bytes:
    """The body of POST /api/v1/models/load for an image model."""
    body: LoadedModel = {
        "status": "success",
        "message": f"Model loaded: {info.id}",
        "model": info.id,
        "model_type": "Diffusion",
        "load_time_ms": round(info.load_ms, 3),
        "active": is_active,
    }
    return _encode(body)


def loaded_object(info: ModelInfo) -> bytes:
    """The body of POST /api/v1/models/load."""
    body: LoadedModel = {
        "status": "success",
        "message": f"Model loaded: {info.id}",
        "model": info.id,
        "model_type": _TYPE_NAMES[type_of(info)],
        "load_time_ms": round(info.load_ms, 3),
        "active": info.active,
        "context_size": info.context_size,
    }
    return _encode(body)


def switched_object(model_id: str, state: ModelState, switch_ms: float) -> bytes:
    """The body of POST /api/v1/models/switch; an evicted model loads with its next request."""
    body: SwitchedModel = {
        "status": "success",
        "message": f"Switched to model: {model_id}",
        "model": model_id,
        "switch_time_ms": round(switch_ms, 6),
        "state": state,
    }
    return _encode(body)


def pinned_object(wanted: PinRequest) -> bytes:
    """The body of POST /api/v1/models/pin."""
    done = "Pinned" if wanted.pinned else "Unpinned"
    body: PinnedModel = {
        "status": "success",
        "message": f"{done} model: {wanted.model_id}",
        "model": wanted.model_id,
        "pinned": wanted.pinned,
    }
    return _encode(body)


def unloaded_object(model_id: str) -> bytes:
    """The body of POST /api/v1/models/unload."""
    body: UnloadedModel = {"status": "success", "message": f"Model unloaded: {model_id}"}
    return _encode(body)


def cache_stats_object(
    models: Sequence[ModelInfo],
    images: Sequence[ImageModelInfo],
    stats: EngineStats,
    totals: Mapping[str, Totals],
) -> bytes:
    """The body of GET /api/v1/models/cache/stats.

    Hits and misses count prompt tokens: restored, and computed, also by models that were
    unloaded since. The specification shows its six fields inside of `stats`, and reads them
    beside it: they are in both places.
    """
    hits = sum(int(each["num_cached_tokens"][0]) for each in totals.values())
    misses = sum(int(each["num_prompt_tokens"][0]) for each in totals.values()) - hits
    memory = stats.memory
    gpu_bytes = sum(info.gpu_bytes for info in models if info.state == "resident")
    gpu_bytes += sum(info.gpu_bytes for info in images)
    counts: CacheCounts = {
        "total_models_loaded": num_in_memory([*models, *images]),
        "gpu_memory_used_mb": megabytes(gpu_bytes),
        "cpu_memory_used_mb": megabytes(max(0, memory.used_bytes - gpu_bytes)),
        "cache_hits": hits,
        "cache_misses": misses,
        "hit_rate": round(hits / (hits + misses), 4) if hits + misses else 0.0,
    }
    more: AllCacheCounts = {
        **counts,
        "memory_budget_mb": megabytes(memory.budget_bytes),
        "snapshot_memory_mb": megabytes(memory.snapshot_bytes),
        "external_memory_mb": megabytes(memory.external_bytes),
        "evictions": memory.num_evictions,
        "reloads": memory.num_reloads,
        "switches": stats.num_switches,
        "kv_files_damaged": stats.kv_store.num_damaged,
        "kv_read_failures": stats.kv_store.num_read_failures,
        "kv_write_failures": stats.kv_store.num_write_failures,
        "models": [_model_stats(m) for m in stats.models],
    }
    body: CacheStatsAnswer = {"stats": more, **counts}
    return _encode(body)


def _model_stats(stats: ModelStats) -> ModelCounts:
    return {
        "id": stats.id,
        "resident": stats.resident,
        "loads": stats.num_loads,
        "evictions": stats.num_evictions,
        "requests": stats.num_requests,
        "requests_running": stats.num_running,
        "requests_waiting": stats.num_waiting,
        "requests_cancelled": stats.num_cancelled,
        "requests_failed": stats.num_failed,
        "prompt_tokens": stats.num_prompt_tokens,
        "cached_tokens": stats.num_cached_tokens,
        "generated_tokens": stats.num_generated_tokens,
        "embedded_tokens": stats.num_embedded_tokens,
        "draft_tokens": stats.num_draft_tokens,
        "accepted_draft_tokens": stats.num_accepted_draft_tokens,
        "stopped_steps": stats.num_stopped_steps,
        "preemptions": stats.num_preemptions,
        "kv_cells_used": stats.num_kv_cells_used,
        "mean_batch_tokens": _mean(stats.num_batch_tokens, stats.num_steps),
        "mean_batch_sequences": _mean(stats.num_batch_sequences, stats.num_steps),
        "mean_queue_ms": _mean(stats.queue_time.sum_ms, stats.queue_time.count),
        "mean_ttft_ms": _mean(stats.time_to_first_token.sum_ms, stats.time_to_first_token.count),
        "mean_itl_ms": _mean(stats.inter_token_latency.sum_ms, stats.inter_token_latency.count),
    }


def _mean(total: float, count: int) -> float:
    return round(total / count, 3) if count else 0.0
