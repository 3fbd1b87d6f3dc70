"""The Context API's bodies: parse and encode."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from snapllm._checks import invalid_field
from snapllm.contexts import ContextStats, ContextView
from snapllm.contexts.manager import DEFAULT_TTL_SECONDS
from snapllm.contexts.record import ContextName, ContextRecord, TtlSeconds
from snapllm.contexts.views import Tier
from snapllm.conversation import ContentPart
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ChatResult, Usage
from snapllm.params import (
    DEFAULT_MAX_TOKENS,
    ChatOptions,
    MaxTokens,
    MinP,
    Seed,
    StopSequence,
    Temperature,
    TopK,
    TopP,
)
from snapllm.protocol.decoding import decode_body

_encode = msgspec.json.encode
_COLDER: dict[str, Tier] = {"hot": "warm", "warm": "cold", "cold": "cold"}
_WARMER: dict[str, Tier] = {"cold": "warm", "warm": "hot", "hot": "hot"}


class IngestRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/contexts/ingest."""

    content: Annotated[str, Meta(min_length=1)] | list[ContentPart]
    """The document, or its texts and pictures in their order (data URLs)."""
    model_id: Annotated[str, Meta(min_length=1)]
    name: ContextName | None = None
    ttl_seconds: TtlSeconds | None = DEFAULT_TTL_SECONDS
    stream: bool = False


class QueryRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/contexts/{id}/query."""

    query: Annotated[str, Meta(min_length=1)]
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS
    temperature: Temperature = 0.0
    top_p: TopP = 0.9
    top_k: TopK = 40
    min_p: MinP = 0.05
    seed: Seed = -1
    stop: StopSequence | list[StopSequence] = []
    thinking: bool = False
    stream: bool = False

    def options(self) -> ChatOptions:
        """As keyword arguments of a chat."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "seed": self.seed,
            "stop": self.stop,
            "thinking": self.thinking,
        }


class TierRequest(msgspec.Struct):
    """The body of POST /api/v1/contexts/{id}/promote and /demote."""

    tier: Tier | None = None


class AppendRequest(msgspec.Struct):
    """The body of POST /api/v1/contexts/{id}/append."""

    content: Annotated[str, Meta(min_length=1)]


class ForkRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/contexts/{id}/fork."""

    name: ContextName | None = None
    ttl_seconds: TtlSeconds | None = DEFAULT_TTL_SECONDS


class ImportQuery(msgspec.Struct, kw_only=True):
    """The query of POST /api/v1/contexts/import, whose body is the file."""

    model_id: str = ""
    name: ContextName | None = None
    ttl_seconds: TtlSeconds | None = DEFAULT_TTL_SECONDS


_ingest_decoder = msgspec.json.Decoder(IngestRequest)
_query_decoder = msgspec.json.Decoder(QueryRequest)
_tier_decoder = msgspec.json.Decoder(TierRequest)
_append_decoder = msgspec.json.Decoder(AppendRequest)
_fork_decoder = msgspec.json.Decoder(ForkRequest)


def parse_ingest(body: bytes) -> IngestRequest:
    """Reads an ingest request."""
    return decode_body(body, _ingest_decoder)


def parse_query(body: bytes) -> QueryRequest:
    """Reads a question."""
    return decode_body(body, _query_decoder)


def parse_append(body: bytes) -> AppendRequest:
    """Reads text to append."""
    return decode_body(body, _append_decoder)


def parse_fork(body: bytes) -> ForkRequest:
    """Reads a fork request; an empty body means the defaults."""
    return decode_body(body or b"{}", _fork_decoder)


def parse_tier(body: bytes, current: str | None, *, promote: bool) -> Tier:
    """Reads where to move a context; without a tier, one step up or down."""
    tier = decode_body(body or b"{}", _tier_decoder).tier
    return tier or (_WARMER if promote else _COLDER)[current or "cold"]


def parse_import(query: Mapping[str, str]) -> ImportQuery:
    """Reads the query of an import; a ttl_seconds of 0 means for ever."""
    try:
        wanted = msgspec.convert(dict(query), ImportQuery, strict=False)
    except msgspec.ValidationError as error:
        if query.get("ttl_seconds") == "0":
            rest = {name: value for name, value in query.items() if name != "ttl_seconds"}
            return msgspec.structs.replace(parse_import(rest), ttl_seconds=None)
        raise invalid_field(str(error)) from None
    return wanted


def parse_filters(tier: str | None, model_id: str | None) -> tuple[str | None, str | None]:
    """Checks the filters of the list."""
    if tier not in (None, "hot", "warm", "cold"):
        raise InvalidRequestError("tier must be hot, warm or cold", param="tier")
    return tier, model_id


def _megabytes(num_bytes: int) -> float:
    return round(num_bytes / 1_000_000, 3)


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def context_object(view: ContextView) -> dict[str, Any]:
    """A context in the list."""
    record = view.record
    return {
        "context_id": record.id,
        "name": record.name,
        "model_id": record.model_id,
        "tier": view.tier or "cold",
        "token_count": len(record.tokens),
        "storage_size_mb": _megabytes(view.storage_bytes),
        "memory_mb": _megabytes(view.hot_bytes + view.ram_bytes),
        "disk_mb": _megabytes(view.disk_bytes),
        "is_stored": view.is_on_disk,
        "created_at": _time(record.created_at),
        "expires_at": _time(record.expires_at),
        "ttl_seconds": record.ttl_seconds,
    }


def ingested_object(view: ContextView) -> dict[str, Any]:
    """The answer to an ingest."""
    return {
        "status": "success",
        "context_id": view.record.id,
        "name": view.record.name,
        "model_id": view.record.model_id,
        "token_count": len(view.record.tokens),
        "cached_tokens": view.num_cached_tokens,
        "storage_size_mb": _megabytes(view.storage_bytes),
        "tier": view.tier or "cold",
        "ingest_time_ms": round(view.ingest_ms, 3),
        "expires_at": _time(view.record.expires_at),
    }


def progress_object(num_computed: int, num_tokens: int) -> bytes:
    """A step of a streamed ingest."""
    return _encode(
        {
            "type": "progress",
            "computed_tokens": num_computed,
            "token_count": num_tokens,
            "done": False,
        }
    )


def ingested_piece(view: ContextView) -> bytes:
    """The last piece of a streamed ingest."""
    return _encode({"type": "result", **ingested_object(view), "done": True})


def usage_object(record: ContextRecord, usage: Usage) -> dict[str, int]:
    """The token counts of a question."""
    return {
        "context_tokens": len(record.tokens),
        "query_tokens": max(0, usage.num_prompt_tokens - len(record.tokens)),
        "generated_tokens": usage.num_generated_tokens,
        "cached_tokens": usage.num_cached_tokens,
    }


def query_object(
    record: ContextRecord, answer: ChatResult, cache_hit: bool, latency_ms: float
) -> dict[str, Any]:
    """The answer to a question."""
    body: dict[str, Any] = {
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


def moved_object(view: ContextView, previous: str | None) -> dict[str, Any]:
    """The answer to a promotion or demotion."""
    return {
        "status": "success",
        "context_id": view.record.id,
        "tier": view.tier or "cold",
        "previous_tier": previous or "cold",
        "memory_mb": _megabytes(view.hot_bytes + view.ram_bytes),
        "disk_mb": _megabytes(view.disk_bytes),
    }


def list_object(views: list[ContextView]) -> dict[str, Any]:
    """The list of contexts."""
    return {
        "status": "success",
        "contexts": [context_object(view) for view in views],
        "count": len(views),
    }


def stats_object(stats: ContextStats) -> dict[str, Any]:
    """The statistics as the specification has them, and the bytes on disk."""
    num_queries = stats.num_hits + stats.num_misses
    return {
        "status": "success",
        "stats": {
            "total_contexts": stats.num_contexts,
            "hot_contexts": stats.num_hot,
            "warm_contexts": stats.num_warm,
            "cold_contexts": stats.num_cold,
            "total_memory_mb": _megabytes(stats.memory_bytes),
            "total_disk_mb": _megabytes(stats.disk_bytes),
            "cache_hits": stats.num_hits,
            "cache_misses": stats.num_misses,
            "hit_rate": round(stats.num_hits / num_queries, 4) if num_queries else 0.0,
            "avg_query_latency_ms": round(stats.total_latency_ms / num_queries, 3)
            if num_queries
            else 0.0,
        },
    }
