"""How engines end: with a block, in a forked child, and at the interpreter's end."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol

from typing_extensions import Self

from snapllm import _core, _workers
from snapllm._gate import Gate


class ClosedAtExit(ABC):
    """A context manager, also an asynchronous one, whose end closes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # It waits for threads that may wait for the loop.
        await asyncio.to_thread(self.close)

    @abstractmethod
    def close(self, drain_timeout_s: float = 0.0) -> None:
        """Ends it; its requests get so many seconds to finish."""


class _Closable(Protocol):
    def close(self) -> None: ...


_cores: weakref.WeakSet[_core.Engine] = weakref.WeakSet()
_gates: weakref.WeakSet[Gate] = weakref.WeakSet()
_others: weakref.WeakSet[_Closable] = weakref.WeakSet()
_PACKAGE = str(Path(__file__).parent) + os.sep
_RETURN_S = 60.0
"""How long a thread may take to come back: an image model that is being read does not stop."""


def watch(core: _core.Engine, gate: Gate, *others: _Closable) -> None:
    """Takes care of an engine: its core, its gate, and what else of it computes."""
    _cores.add(core)
    _gates.add(gate)
    _others.update(others)


def _leave() -> None:
    """In a forked child: an engine's threads are not there, and its end would wait for them."""
    for core in _cores:
        core.abandon()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(core))
    for gate in _gates:
        gate.abandon()
    _cores.clear()
    _gates.clear()
    _others.clear()


def _close() -> None:
    """At the interpreter's end: a thread that came back from C++ later would abort it."""
    for each in (*_others, *_cores):
        each.close()
    deadline = time.monotonic() + _RETURN_S
    while _is_anybody_inside() and time.monotonic() < deadline:
        time.sleep(0.005)


def _is_anybody_inside() -> bool:
    """Whether another thread has work in the package, from which alone the C++ is called: what it
    is in just now, an import perhaps, will go on there."""
    own = threading.get_ident()
    frames = [frame for thread, frame in sys._current_frames().items() if thread != own]
    return any(map(_has_work, frames))


def _has_work(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PACKAGE) and code not in _workers.IDLE_CODE:
            return True
        frame = frame.f_back
    return False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)
atexit.register(_close)
