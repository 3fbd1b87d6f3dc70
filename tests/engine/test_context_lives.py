"""How long contexts live: from when they are kept, and not a request's time longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import snapllm
from snapllm.contexts import ContextView, expiry

DOCUMENT = "The vacation policy is 20 days of paid vacation. "


class Clock:
    """The time of day, which a test may put forward."""

    def __init__(self) -> None:
        self._time, self._ahead_s = time.time, 0.0

    def __call__(self) -> float:
        return self._time() + self._ahead_s

    def forward(self, seconds: float) -> None:
        self._ahead_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def engine(tmp_path: Path, llama_path: Path) -> Iterator[snapllm.Engine]:
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "w") as engine:
        engine.load(llama_path, "m")
        yield engine


@pytest.fixture
def slow(
    engine: snapllm.Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], None]:
    """Has each prefill take so many seconds from now on."""
    compute = engine.contexts._keeper.compute

    def slow_down(seconds: float) -> None:
        def compute_slowly(*arguments: Any) -> int:
            num_cached = compute(*arguments)
            clock.forward(seconds)
            return num_cached

        monkeypatch.setattr(engine.contexts._keeper, "compute", compute_slowly)

    return slow_down


def seconds_left(view: ContextView) -> float:
    assert view.record.expires_at is not None
    return view.record.expires_at - time.time()


def test_what_takes_longer_than_it_is_to_live_lives_as_long_all_the_same(
    engine: snapllm.Engine, slow: Callable[[float], None], tmp_path: Path
) -> None:
    contexts = engine.contexts
    contexts.ingest(DOCUMENT, name="first", ttl_seconds=None)
    contexts.export_file("first", tmp_path / "first")
    slow(100)
    for name, make in {
        "ingested": lambda: contexts.ingest("A document.", name="ingested", ttl_seconds=50),
        "forked": lambda: contexts.fork("first", name="forked", ttl_seconds=50),
        "imported": lambda: contexts.import_file(
            tmp_path / "first", name="imported", ttl_seconds=50
        ),
    }.items():
        assert 49 < seconds_left(make()) <= 50
        assert contexts.get(name).record.name == name


def test_what_is_appended_begins_a_contexts_time_again(
    engine: snapllm.Engine, clock: Clock, slow: Callable[[float], None]
) -> None:
    created_at = engine.contexts.ingest(DOCUMENT, name="doc", ttl_seconds=100).record.created_at
    clock.forward(60)
    slow(20)
    view = engine.contexts.append("doc", "More.")
    assert 99 < seconds_left(view) <= 100 and view.record.created_at == created_at
    assert engine.contexts.get("doc").record == view.record
    assert engine.contexts.fork("doc", ttl_seconds=100).record.expires_at == pytest.approx(
        time.time() + 100, abs=1
    )


def test_a_context_whose_time_is_over_as_it_is_appended_to_is_not_found(
    engine: snapllm.Engine, slow: Callable[[float], None]
) -> None:
    engine.contexts.ingest(DOCUMENT, name="doc", ttl_seconds=50)
    slow(100)
    with pytest.raises(snapllm.ContextNotFoundError):
        engine.contexts.append("doc", "More.")
    assert engine.contexts.list() == []


def test_what_has_expired_is_removed_though_nobody_asks_for_anything(
    tmp_path: Path, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "DELAY_S", 0.05)
    folder = tmp_path / "w" / "contexts"
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "w") as engine:
        engine.load(llama_path, "m")
        engine.contexts.ingest(DOCUMENT, name="stays", ttl_seconds=None)
        for i in range(3):
            engine.contexts.ingest(f"{DOCUMENT}{i}", ttl_seconds=1)
        engine.contexts.ingest(DOCUMENT, name="later", ttl_seconds=2)
        wait_until(lambda: len(list(folder.iterdir())) == 2)
        wait_until(lambda: len(list(folder.iterdir())) == 1)
        engine.contexts.ingest(DOCUMENT, name="after the end", ttl_seconds=1)
    time.sleep(1)
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "w") as engine:
        wait_until(lambda: len(list(folder.iterdir())) == 1)
        assert [view.record.name for view in engine.contexts.list()] == ["stays"]


def test_neither_a_list_nor_an_ingest_waits_for_removals(
    engine: snapllm.Engine, clock: Clock, tmp_path: Path
) -> None:
    engine.contexts.ingest(DOCUMENT, ttl_seconds=50)
    clock.forward(100)
    assert engine.contexts.list() == []
    engine.contexts.ingest(DOCUMENT, name="next")
    assert [view.record.name for view in engine.contexts.list()] == ["next"]
    assert len(list((tmp_path / "w" / "contexts").iterdir())) == 2


def test_what_has_expired_makes_room_for_an_ingest_that_needs_it(
    llama_path: Path, clock: Clock
) -> None:
    with snapllm.Engine(num_threads=1, kv_ram_bytes=100_000) as engine:
        engine.load(llama_path, "m", context_size=1024)
        engine.contexts.ingest("a " + DOCUMENT * 4, ttl_seconds=50)
        with pytest.raises(snapllm.ContextTooLargeError):
            engine.contexts.ingest("b " + DOCUMENT * 4)
        clock.forward(100)
        assert engine.contexts.ingest("b " + DOCUMENT * 4, name="b").tier is not None
        assert [view.record.name for view in engine.contexts.list()] == ["b"]
