"""Ending the computation of a context from outside."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class ContextCancelled(Exception):
    """The context is not wanted any more; nothing of it was kept."""


class Cancellation:
    """Ends the call that it is given to, which then raises `ContextCancelled`. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._stop: Callable[[], object] | None = None

    def cancel(self) -> None:
        """Ends the call as soon as can be; without effect once the context is kept."""
        with self._lock:
            self._is_cancelled = True
            if self._stop is not None:
                self._stop()

    def check(self) -> None:
        """Raises `ContextCancelled` once `cancel` was called."""
        if self._is_cancelled:
            raise ContextCancelled

    @contextlib.contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """Has `cancel` call `stop` within the block: at once, where it was called before."""
        with self._lock:
            self._stop = stop
            if self._is_cancelled:
                stop()
        try:
            yield
        finally:
            with self._lock:
                self._stop = None
