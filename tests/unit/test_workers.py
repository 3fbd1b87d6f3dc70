"""Threads of our own: as many as are needed, and for no longer."""

from __future__ import annotations

import functools
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from snapllm import _lifetime, _workers
from snapllm._workers import Workers
from snapllm.errors import OutOfMemoryError


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_no_more_calls_run_at_once_than_there_may_be_threads() -> None:
    workers, go_on = Workers("two", 2), threading.Event()
    begun = threading.Semaphore(0)

    def call() -> int:
        begun.release()
        assert go_on.wait(10)
        return threading.get_ident()

    futures = [workers.submit(call) for _ in range(5)]
    for _ in range(2):
        assert begun.acquire(timeout=10)
    assert futures[4].cancel()
    assert [future.running() for future in futures] == [True, True, False, False, False]
    assert [thread.daemon for thread in threads("two")] == [True, True]
    go_on.set()
    assert len({future.result(10) for future in futures[:4]}) <= 2


def test_a_thread_without_work_waits_for_the_next_call() -> None:
    workers = Workers("test", 4)
    used = set()
    for _ in range(20):
        used.add(workers.submit(threading.get_ident).result(10))
        time.sleep(0.01)
    assert len(used) < 20


def test_a_thread_that_is_not_needed_ends_and_another_may_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_workers, "_IDLE_S", 0.01)
    workers = Workers("short", 1)
    for number in range(3):
        assert workers.submit(lambda number=number: number + 1).result(10) == number + 1
        deadline = time.monotonic() + 10
        while threads("short"):
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_what_a_call_raises_is_its_result_and_nothing_of_it_is_kept() -> None:
    class Used:
        pass

    def call(used: Used) -> None:
        raise KeyError("x")

    gc.disable()
    try:
        workers, used = Workers("test", 1), Used()
        last = weakref.ref(used)
        future: Future[None] = workers.submit(lambda used=used: call(used))
        del used
        with pytest.raises(KeyError):
            future.result(10)
        del future
        workers.submit(int).result(10)
        assert last() is None
    finally:
        gc.enable()


def test_a_call_for_which_no_thread_can_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers("test", 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OutOfMemoryError, match="new thread"):
            workers.submit(lambda: pytest.fail("it was refused"))
    assert workers.submit(lambda: 3).result(10) == 3


def test_a_call_that_a_free_thread_took_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, go_on = Workers("test", 2), threading.Event()
    first = workers.submit(lambda: go_on.wait(10))

    def refuse(thread: threading.Thread) -> None:
        go_on.set()
        first.result(10)
        deadline = time.monotonic() + 10
        while workers._waiting and time.monotonic() < deadline:
            time.sleep(0.001)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert workers.submit(lambda: 3).result(10) == 3


def test_the_interpreters_end_waits_for_calls_but_not_for_idle_threads() -> None:
    workers = Workers("test", 1)
    workers.submit(int).result(10)
    assert wait_until(lambda: not _lifetime._is_anybody_inside())
    lock = threading.Lock()
    with lock:
        # A call in C, as the core's are: no frame of Python's is of it.
        future = workers.submit(lock.acquire)
        assert wait_until(_lifetime._is_anybody_inside)
    assert future.result(10)
    assert wait_until(lambda: not _lifetime._is_anybody_inside())


def wait_until(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.001)
    return is_so()


def test_a_call_that_is_cancelled_lets_what_it_would_have_used_go() -> None:
    workers = Workers("test", 1)
    go_on = threading.Event()
    first = workers.submit(go_on.wait)

    class Large:
        pass

    large = Large()
    held = weakref.ref(large)
    later = workers.submit(functools.partial(id, large))
    del large
    assert held() is not None
    assert later.cancel()
    assert held() is None
    go_on.set()
    assert first.result(10)
