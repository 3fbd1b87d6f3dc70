"""Warnings about the files of the KV store, which the core counts and says nothing of."""

from __future__ import annotations

import logging
import time

from snapllm.engine import Engine

log = logging.getLogger("snapllm.store")

WARNING_INTERVAL_S = 30.0
_WARNINGS = {
    "num_damaged": "damaged files of KV were removed from the workspace: %d so far",
    "num_read_failures": "files of KV could not be read from the workspace and were left: %d so "
    "far; are too many files open, or may they not be read?",
    "num_write_failures": "files of KV could not be written to the workspace: %d so far; is its "
    "disk full, or may it not be written?",
}


class StoreLog:
    """Says how many files were damaged or could not be read or written, once in a while at most."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counts = dict.fromkeys(_WARNINGS, 0)
        self._warned_at = dict.fromkeys(_WARNINGS, float("-inf"))

    def look(self) -> None:
        """Warns of what there was since the last warning."""
        stats, now = self._engine.stats().kv_store, time.monotonic()
        for name, text in _WARNINGS.items():
            count = getattr(stats, name)
            if count > self._counts[name] and now - self._warned_at[name] >= WARNING_INTERVAL_S:
                log.warning(text, count)
                self._counts[name], self._warned_at[name] = count, now
