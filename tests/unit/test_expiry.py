"""The timer that has expired contexts removed."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref

import pytest
from waiting import wait_until

from snapllm.contexts import expiry
from snapllm.contexts.expiry import ExpiryTimer
from snapllm.errors import EngineClosedError, StorageError


class Remover:
    """Counts what it is asked for; fails as it is told to, then says when to ask again."""

    def __init__(self, *outcomes: Exception | float | None) -> None:
        self.outcomes = list(outcomes)
        self.num_looks = 0

    def remove(self) -> float | None:
        self.num_looks += 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "DELAY_S", 0.01)


def test_expiry_outlives_every_failure_and_ends_quietly_with_the_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = StorageError("disk"), RuntimeError("bug"), EngineClosedError("closed")
    remover = Remover(*failures)
    timer = ExpiryTimer(remover.remove)
    with caplog.at_level(logging.WARNING, "snapllm.contexts"):
        timer.set(time.time())
        wait_until(lambda: remover.num_looks == 3)
        time.sleep(0.05)
    assert remover.num_looks == 3
    assert [record.getMessage() for record in caplog.records] == [
        "expired contexts cannot be removed: disk",
        "expired contexts cannot be removed",
    ]


def test_the_earliest_time_counts_and_then_the_next() -> None:
    remover = Remover(time.time() + 0.1, None)
    timer = ExpiryTimer(remover.remove)
    for at in (None, time.time() + 100, time.time(), time.time() + 50):
        timer.set(at)
    wait_until(lambda: remover.num_looks == 2)
    time.sleep(0.05)
    assert remover.num_looks == 2


def test_a_timer_that_is_stopped_or_whose_contexts_are_gone_does_nothing() -> None:
    others = set(threading.enumerate())  # of engines that other tests share
    stopped, gone = Remover(), Remover()
    timers = [ExpiryTimer(remover.remove) for remover in (stopped, gone)]
    for timer in timers:
        timer.set(time.time() + 0.05)
    timers[0].stop()
    timers[0].set(time.time())
    held = weakref.ref(gone)
    del gone
    gc.collect()
    assert held() is None
    wait_until(
        lambda: not any(t.name == "snapllm-expiry" for t in {*threading.enumerate()} - others)
    )
    assert stopped.num_looks == 0


def test_without_a_thread_the_next_one_that_is_set_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    remover = Remover()
    timer = ExpiryTimer(remover.remove)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", fail)
        timer.set(time.time())
    timer.set(time.time() + 0.01)
    wait_until(lambda: remover.num_looks == 1)
