"""How the questions to contexts went."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass
class _Counts:
    num_hits: int = 0
    num_misses: int = 0
    total_latency_ms: float = 0.0


class QueryCounts:
    """Hits, misses and latencies, by namespace. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, _Counts] = {}

    def note(self, cache_namespace: str, hit: bool, latency_ms: float) -> None:
        """Counts a question."""
        with self._lock:
            counts = self._counts.setdefault(cache_namespace, _Counts())
            counts.num_hits += hit
            counts.num_misses += not hit
            counts.total_latency_ms += latency_ms

    def read(self, cache_namespace: str) -> tuple[int, int, float]:
        """Hits, misses, and the sum of the latencies in milliseconds."""
        with self._lock:
            counts = self._counts.get(cache_namespace, _Counts())
            return counts.num_hits, counts.num_misses, counts.total_latency_ms
