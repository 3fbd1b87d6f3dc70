"""The Context API: answers out, as the specification has them, and what is added to them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

import msgspec
from typing_extensions import NotRequired, TypedDict

from snapllm.contexts import ContextStats, ContextView
from snapllm.contexts.record import ContextRecord
from snapllm.contexts.views import Tier
from snapllm.outputs import ChatResult, Usage
from snapllm.protocol.native_listing import megabytes

if TYPE_CHECKING:
    from snapllm.protocol.stream_types import IngestProgress, IngestResult

_encode = msgspec.json.encode


class ContextObject(TypedDict):
    """A context in the list."""

    context_id: str
    name: str
    model_id: str
    tier: Tier
    token_count: int
    storage_size_mb: float
    memory_mb: float
    disk_mb: float
    is_stored: bool
    created_at: str
    expires_at: str | None
    ttl_seconds: int | None


class OneContext(ContextObject):
    """The body of GET /api/v1/contexts/{context_id}."""

    status: Literal["success"]


class ContextList(TypedDict):
    """The body of GET /api/v1/contexts."""

    status: Literal["success"]
    contexts: list[ContextObject]
    count: int


class IngestedContext(TypedDict):
    """The answer to what computes a context: an ingest, an append, a fork and an import."""

    status: Literal["success"]
    context_id: str
    name: str
    model_id: str
    token_count: int
    cached_tokens: int
    storage_size_mb: float
    tier: Tier
    ingest_time_ms: float
    expires_at: str | None


class QueryUsage(TypedDict):
    """The token counts of a question."""

    context_tokens: int
    query_tokens: int
    generated_tokens: int
    cached_tokens: int


class QueryAnswer(TypedDict):
    """The body of POST /api/v1/contexts/{context_id}/query."""

    status: Literal["success"]
    context_id: str
    model: str
    response: str
    finish_reason: str
    cache_hit: bool
    usage: QueryUsage
    latency_ms: float
    reasoning: NotRequired[str]


class MovedContext(TypedDict):
    """The answer to a promotion or demotion."""

    status: Literal["success"]
    context_id: str
    tier: Tier
    previous_tier: Tier
    memory_mb: float
    disk_mb: float


class DeletedContext(TypedDict):
    """The body of DELETE /api/v1/contexts/{context_id}."""

    status: Literal["success"]
    context_id: str
    deleted: Literal[True]


class ContextCounts(TypedDict):
    """How many contexts there are, what they take, and how questions found them."""

    total_contexts: int
    hot_contexts: int
    warm_contexts: int
    cold_contexts: int
    total_memory_mb: float
    total_disk_mb: float
    cache_hits: int
    cache_misses: int
    hit_rate: float
    avg_query_latency_ms: float


class ContextStatsAnswer(TypedDict):
    """The body of GET /api/v1/contexts/stats."""

    status: Literal["success"]
    stats: ContextCounts


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _expiry(record: ContextRecord) -> str | None:
    return None if record.expires_at is None else _time(record.expires_at)


def context_object(view: ContextView) -> ContextObject:
    """A context in the list."""
    record = view.record
    return {
        "context_id": record.id,
        "name": record.name,
        "model_id": record.model_id,
        "tier": view.tier or "cold",
        "token_count": len(record.tokens),
        "storage_size_mb": megabytes(view.storage_bytes),
        "memory_mb": megabytes(view.hot_bytes + view.ram_bytes),
        "disk_mb": megabytes(view.disk_bytes),
        "is_stored": view.is_on_disk,
        "created_at": _time(record.created_at),
        "expires_at": _expiry(record),
        "ttl_seconds": record.ttl_seconds,
    }


def one_object(view: ContextView) -> OneContext:
    """A context by itself."""
    return {"status": "success", **context_object(view)}


def deleted_object(record: ContextRecord) -> DeletedContext:
    """The answer to a removal."""
    return {"status": "success", "context_id": record.id, "deleted": True}


def ingested_object(view: ContextView) -> IngestedContext:
    """The answer to an ingest."""
    return {
        "status": "success",
        "context_id": view.record.id,
        "name": view.record.name,
        "model_id": view.record.model_id,
        "token_count": len(view.record.tokens),
        "cached_tokens": view.num_cached_tokens,
        "storage_size_mb": megabytes(view.storage_bytes),
        "tier": view.tier or "cold",
        "ingest_time_ms": round(view.ingest_ms, 3),
        "expires_at": _expiry(view.record),
    }


def progress_object(num_computed: int, num_tokens: int) -> bytes:
    """A step of a streamed ingest."""
    piece: IngestProgress = {
        "type": "progress",
        "computed_tokens": num_computed,
        "token_count": num_tokens,
        "done": False,
    }
    return _encode(piece)


def ingested_piece(view: ContextView) -> bytes:
    """The last piece of a streamed ingest."""
    piece: IngestResult = {"type": "result", **ingested_object(view), "done": True}
    return _encode(piece)


def usage_object(record: ContextRecord, usage: Usage) -> QueryUsage:
    """The token counts of a question."""
    return {
        "context_tokens": len(record.tokens),
        "query_tokens": max(0, usage.num_prompt_tokens - len(record.tokens)),
        "generated_tokens": usage.num_generated_tokens,
        "cached_tokens": usage.num_cached_tokens,
    }


def query_object(
    record: ContextRecord, answer: ChatResult, cache_hit: bool, latency_ms: float
) -> QueryAnswer:
    """The answer to a question."""
    body: QueryAnswer = {
        "status": "success",
        "context_id": record.id,
        "model": record.model_id,
        "response": answer.content,
        "finish_reason": answer.finish_reason,
        "cache_hit": cache_hit,
        "usage": usage_object(record, answer.usage),
        "latency_ms": round(latency_ms, 3),
    }
    if answer.reasoning:
        body["reasoning"] = answer.reasoning
    return body


def moved_object(view: ContextView, previous: Tier | None) -> MovedContext:
    """The answer to a promotion or demotion."""
    return {
        "status": "success",
        "context_id": view.record.id,
        "tier": view.tier or "cold",
        "previous_tier": previous or "cold",
        "memory_mb": megabytes(view.hot_bytes + view.ram_bytes),
        "disk_mb": megabytes(view.disk_bytes),
    }


def list_object(views: list[ContextView]) -> ContextList:
    """The list of contexts."""
    return {
        "status": "success",
        "contexts": [context_object(view) for view in views],
        "count": len(views),
    }


def stats_object(stats: ContextStats) -> ContextStatsAnswer:
    """The statistics as the specification has them, and the bytes on disk."""
    num_queries = stats.num_hits + stats.num_misses
    return {
        "status": "success",
        "stats": {
            "total_contexts": stats.num_contexts,
            "hot_contexts": stats.num_hot,
            "warm_contexts": stats.num_warm,
            "cold_contexts": stats.num_cold,
            "total_memory_mb": megabytes(stats.memory_bytes),
            "total_disk_mb": megabytes(stats.disk_bytes),
            "cache_hits": stats.num_hits,
            "cache_misses": stats.num_misses,
            "hit_rate": round(stats.num_hits / num_queries, 4) if num_queries else 0.0,
            "avg_query_latency_ms": round(stats.total_latency_ms / num_queries, 3)
            if num_queries
            else 0.0,
        },
    }
