"""What callers get to see of contexts."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from snapllm.contexts.record import ContextRecord
from snapllm.outputs import ChatResult

Tier: TypeAlias = Literal["hot", "warm", "cold"]


class ContextView(msgspec.Struct, frozen=True, kw_only=True):
    """A context and where its KV is right now."""

    record: ContextRecord
    tier: Tier | None
    """None: its KV was lost; the next question computes it again."""
    hot_bytes: int
    ram_bytes: int
    disk_bytes: int
    is_on_disk: bool
    """Whether all of its KV is, wherever else it is; not where that is of no use to the model that
    is loaded under its id."""
    ingest_ms: float = 0.0
    num_cached_tokens: int = 0
    """At ingest: tokens that had been computed before."""

    @property
    def storage_bytes(self) -> int:
        """Size of its KV in the tier that holds it whole."""
        return self.disk_bytes or self.ram_bytes or self.hot_bytes


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a question to a context."""

    record: ContextRecord
    answer: ChatResult
    cache_hit: bool
    latency_ms: float


class ContextStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over all contexts, and of the questions since the start."""

    num_contexts: int
    num_hot: int
    num_warm: int
    num_cold: int
    memory_bytes: int
    disk_bytes: int
    num_hits: int
    num_misses: int
    total_latency_ms: float
