"""Counters that outlive their model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from snapllm import _core, metrics, totals
from snapllm._gate import Gate
from snapllm.totals import COUNTERS, HISTOGRAMS, TotalsKeeper


def model(model_id: str, count: int) -> SimpleNamespace:
    histogram = SimpleNamespace(counts=[count] * 17, sum_ms=2.0 * count)
    counted: dict[str, Any] = dict.fromkeys(COUNTERS, count)
    return SimpleNamespace(id=model_id, **counted, **dict.fromkeys(HISTOGRAMS, histogram))


class Source:
    """Counters that a test sets."""

    def __init__(self) -> None:
        self.models: list[SimpleNamespace] = []
        self.gate = Gate()
        self.keeper = TotalsKeeper(lambda: self, self.gate)  # type: ignore[arg-type,return-value]

    def read(self, **models: int) -> dict[str, float]:
        self.models = [model(*each) for each in models.items()]
        _, totals = self.keeper.read()
        for each in totals.values():
            assert each["queue_time"] == (*[each["num_requests"][0]] * 17, each["num_steps"][0] * 2)
        return {model_id: each["num_requests"][0] for model_id, each in totals.items()}


def test_what_an_unloaded_model_counted_stays_and_its_successor_goes_on() -> None:
    source = Source()
    assert source.read(a=5, b=1) == {"a": 5, "b": 1}
    assert source.read(b=1) == {"a": 5, "b": 1}  # on its way out
    source.keeper.end("a", model("a", 6))  # type: ignore[arg-type]
    assert source.read(b=2) == {"a": 6, "b": 2}
    assert source.read(a=7, b=2) == {"a": 13, "b": 2}


def test_a_successor_that_is_there_before_the_unload_returns_takes_nothing_away() -> None:
    source = Source()
    assert source.read(a=5) == {"a": 5}
    assert source.read(a=1) == {"a": 6}
    assert source.read(a=2) == {"a": 7}
    source.keeper.end("a", model("a", 8))  # type: ignore[arg-type]
    assert source.read(a=3) == {"a": 11}


def test_of_very_many_ids_that_are_gone_the_first_are_added_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(totals, "MAX_RETIRED", 3)
    source = Source()
    for i in range(6):
        source.read(**{f"m{i}": 10 + i})
        source.keeper.end(f"m{i}", model(f"m{i}", 10 + i))  # type: ignore[arg-type]
    assert source.read() == {"(others)": 10 + 11 + 12, "m3": 13, "m4": 14, "m5": 15}
    assert source.read(m0=1)["m0"] == 1  # counts anew: what it had is among the others


def test_in_a_forked_child_there_are_no_totals_and_no_lock_is_waited_for() -> None:
    source = Source()
    assert source.read(a=5) == {"a": 5}
    source.gate.abandon()
    with source.keeper._lock:  # as a thread of the parent's holds it that is not there
        assert source.read() == {}


def test_the_totals_are_the_counters_that_are_shown() -> None:
    assert [field for _, field, _ in metrics._COUNTERS] == list(COUNTERS)
    assert [field for _, field, _ in metrics._HISTOGRAMS] == list(HISTOGRAMS)
    assert set(COUNTERS + HISTOGRAMS) <= set(dir(_core.ModelStats))
