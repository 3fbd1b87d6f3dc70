"""Threads that the interpreter's end does not wait for.

Those of `concurrent.futures` are joined before anything is told of the end: a call that only
the engine's end would end would keep the process for ever.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from snapllm.errors import OutOfMemoryError

_T = TypeVar("_T")
_IDLE_S = 1.0


class Workers:
    """Runs calls in their order, a number of them at once. Any thread may use it.

    Threads are started as they are needed. One that has had nothing to do for a second ends, so
    that nobody need end them.

    Args:
        name: The threads' name.
        num_threads: How many calls run at once.
    """

    def __init__(self, name: str, num_threads: int) -> None:
        self._name, self._num_threads = name, num_threads
        self._changed = threading.Condition()
        self._waiting: OrderedDict[int, Callable[[], None]] = OrderedDict()
        self._numbers = itertools.count()
        self._num_started = self._num_idle = 0

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Has a call run; cancelled before it has begun it never does.

        Raises:
            OutOfMemoryError: No thread can be had.
        """
        future: Future[_T] = Future()
        work = functools.partial(_run, future, call)
        with self._changed:
            number = next(self._numbers)
            self._waiting[number] = work
            self._changed.notify()
            all_are_busy = len(self._waiting) > self._num_idle
            is_short = all_are_busy and self._num_started < self._num_threads
            self._num_started += is_short
        if is_short:
            self._start_thread(number)
        future.add_done_callback(functools.partial(self._forget, number))
        return future

    def _forget(self, number: int, future: Future[Any]) -> None:
        """Lets what a call that was cancelled would have used go at once."""
        if future.cancelled():
            with self._changed:
                self._waiting.pop(number, None)

    def _start_thread(self, number: int) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except BaseException as error:
            with self._changed:
                self._num_started -= 1
                if self._waiting.pop(number, None) is None:
                    return  # a thread that became free has it
            if isinstance(error, RuntimeError):
                raise OutOfMemoryError(f"not enough memory for a thread: {error}") from error
            raise

    def _work(self) -> None:
        while (work := self._next()) is not None:
            work()
            del work  # what it used is not kept until the next

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._num_idle += 1
            is_any = self._changed.wait_for(lambda: self._waiting, _IDLE_S)
            self._num_idle -= 1
            if is_any:
                return self._waiting.popitem(last=False)[1]
            self._num_started -= 1
            return None


IDLE_CODE = frozenset({Workers._work.__code__, Workers._next.__code__})
"""What a thread without a call is in."""


def _run(future: Future[_T], call: Callable[[], _T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        del future  # an error's traceback holds this frame
