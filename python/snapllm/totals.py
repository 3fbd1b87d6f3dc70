"""The counters of all models that there have been: they only ever grow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

from snapllm import _core
from snapllm._gate import Gate

COUNTERS = (
    "num_requests",
    "num_finished",
    "num_cancelled",
    "num_failed",
    "num_prompt_tokens",
    "num_cached_tokens",
    "num_generated_tokens",
    "num_embedded_tokens",
    "num_steps",
    "num_batch_tokens",
    "num_batch_sequences",
    "num_loads",
    "num_evictions",
    "num_draft_tokens",
    "num_accepted_draft_tokens",
    "num_stopped_steps",
    "num_preemptions",
    "num_failed_restores",
)
"""Fields of `ModelStats` that count up."""
HISTOGRAMS = ("queue_time", "time_to_first_token", "inter_token_latency")

MAX_RETIRED = 1000
"""Ids of unloaded models whose counters are kept apart; those of the first ones are added up."""
OTHERS = "(others)"
"""What they are added up under."""

Totals: TypeAlias = dict[str, tuple[float, ...]]
"""By field of `ModelStats`: a counter's number; a histogram's counts and, last, its sum in ms."""


class TotalsKeeper:
    """Keeps what models had counted that were unloaded since. Any thread may use it.

    Args:
        read: Reads the counters of the models that are loaded.
        gate: The engine's; tells whether this is a forked child.
    """

    def __init__(self, read: Callable[[], _core.EngineStats], gate: Gate) -> None:
        self._read, self._gate = read, gate
        self._lock = threading.Lock()
        self._past: dict[str, Totals] = {}
        self._seen: dict[str, Totals] = {}
        self._overtaken: dict[str, Totals] = {}

    def read(self) -> tuple[_core.EngineStats, dict[str, Totals]]:
        """The counters now, and the totals by model, ordered by id.

        In a forked child there are none of either: the models are its parent's.
        """
        if self._gate.is_abandoned:
            return self._read(), {}
        with self._lock:
            stats = self._read()
            for model in stats.models:
                self._see(model.id, _totals_of(model))
            ids = sorted(self._past.keys() | self._seen.keys())
            return stats, {
                model_id: _sum(self._past.get(model_id, {}), self._seen.get(model_id, {}))
                for model_id in ids
            }

    def end(self, model_id: str, last: _core.ModelStats) -> None:
        """Says what a model had counted when it was unloaded: another of its id counts from
        nothing."""
        now = _totals_of(last)
        with self._lock:
            counted = self._overtaken.pop(model_id, None)
            if counted is None:
                self._seen[model_id] = now
                self._retire(model_id)
            else:  # another has the id already: what is missing is what came last
                rest = _sum(now, counted, sign=-1)
                self._past[model_id] = _sum(self._past[model_id], rest)

    def _see(self, model_id: str, now: Totals) -> None:
        before = self._seen.get(model_id, {})
        pairs = (zip(now[name], before[name], strict=True) for name in before)
        if any(new < old for pair in pairs for new, old in pair):
            self._overtaken[model_id] = before  # another model has the id already
            self._retire(model_id)
        self._seen[model_id] = now

    def _retire(self, model_id: str) -> None:
        seen = self._seen.pop(model_id, None)
        if seen is not None:
            self._past[model_id] = _sum(self._past.get(model_id, {}), seen)
        if len(self._past) > MAX_RETIRED:
            busy = self._seen.keys() | self._overtaken.keys() | {OTHERS}
            first = next((each for each in self._past if each not in busy), None)
            if first is not None:
                self._past[OTHERS] = _sum(self._past.get(OTHERS, {}), self._past.pop(first))


def _totals_of(model: _core.ModelStats) -> Totals:
    totals: Totals = {name: (getattr(model, name),) for name in COUNTERS}
    for name in HISTOGRAMS:
        histogram: _core.LatencyHistogram = getattr(model, name)
        totals[name] = (*histogram.counts, histogram.sum_ms)
    return totals


def _sum(a: Totals, b: Totals, sign: int = 1) -> Totals:
    if not a or not b:
        return {**a, **b}
    return {name: tuple(x + sign * y for x, y in zip(a[name], b[name], strict=True)) for name in a}
