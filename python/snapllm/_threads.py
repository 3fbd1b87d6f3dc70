"""The threads of an engine: one pool for each kind of work, so that no kind waits for another.

asyncio's own pool is left to asyncio.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from snapllm import _core
from snapllm._workers import Workers
from snapllm.errors import QueueFullError

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Pool:
    """Threads for one kind of work, started as they are needed. Any event loop may use it.

    Args:
        kind: What it works on; for errors and the threads' names.
        num_threads: How many calls run at once.
        max_waiting: How many more may wait; None = any number.
    """

    def __init__(self, kind: str, num_threads: int, *, max_waiting: int | None = None) -> None:
        self._kind = kind
        self._workers = Workers(f"snapllm-{kind}", num_threads)
        self._places: threading.Semaphore | None = None
        if max_waiting is not None:
            self._places = threading.Semaphore(num_threads + max_waiting)

    def start(
        self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> asyncio.Future[_T]:
        """Has a call run; cancelled before it has begun it never does.

        Raises:
            QueueFullError: Too many calls wait.
        """
        places = self._places
        if places is not None and not places.acquire(blocking=False):
            raise QueueFullError(f"too many {self._kind} requests are waiting; try again later")
        try:
            future = self._workers.submit(functools.partial(call, *args, **kwargs))
        except BaseException:
            if places is not None:
                places.release()
            raise
        if places is not None:
            future.add_done_callback(lambda _: places.release())
        return asyncio.wrap_future(future)

    async def run(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Waits for a call, which runs to its end also where the waiting is cancelled.

        Raises:
            QueueFullError: Too many calls wait.
        """
        task = self.start(call, *args, **kwargs)
        task.add_done_callback(see_failure)
        return await asyncio.shield(task)


class Threads:
    """All pools of an engine and its server.

    Args:
        max_waiting: Calls that may wait in each pool whose calls wait for a model.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.formatting = Pool("text", min(32, _core.available_cpus() + 4))
        """Makes prompts of texts: milliseconds."""
        self.parsing = Pool("parsing", 2)
        """Reads large bodies of requests."""
        self.media = Pool("media", 4)
        """Decodes, encodes and fetches pictures: up to seconds."""
        self.files = Pool("file", 4)
        """Short looks at the disk and at what is kept there."""
        self.loading = Pool("load", 2)
        """Loads models that were asked for by their files: seconds to minutes."""
        self.returning = Pool("return", 4)
        """Loads models again that were evicted."""
        self.embedding = Pool("embedding", 2, max_waiting=max_waiting)
        """Waits for the model."""
        self.contexts = Pool("context", 16, max_waiting=max_waiting)
        """Waits for the model's prefills and for KV on its way to the disk and back."""


async def run_apart(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """`Pool.run` on a thread of its own: for what is rare and may take long."""
    return await Pool("apart", 1).run(call, *args, **kwargs)


def see_failure(task: asyncio.Future[Any]) -> None:
    """Has a task's failure count as seen, though nobody may wait for it any more."""
    if not task.cancelled():
        task.exception()
