"""Work that an engine's end waits for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from snapllm.errors import EngineClosedError


class Gate:
    """Lets work in until it is closed. Any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_shut = False
        self._num_working = 0
        self.is_abandoned = False
        """Whether this is a forked child, where any lock may be held for ever."""

    def close(self, timeout_s: float) -> None:
        """Lets nothing in any more, and waits so long for what is under way."""
        if self._is_shut:
            return  # in a forked child the lock may be held for ever
        with self._changed:
            self._is_closing = True
            try:
                self._changed.wait_for(lambda: self._num_working == 0, timeout_s)
            finally:  # Ctrl-C ends the waiting
                self._is_shut = True

    def abandon(self) -> None:
        """Lets nothing in any more, at once and without a lock; for a forked child."""
        self._is_closing = self._is_shut = self.is_abandoned = True

    def check_not_shut(self) -> None:
        """Raises `EngineClosedError` once `close` has waited enough, or after `abandon`: then
        what the engine keeps is not to be touched, by what was let in neither."""
        if self._is_shut:
            raise self._error()

    def check_open(self) -> None:
        """Raises `EngineClosedError` once `close` was called."""
        if self._is_closing:
            raise self._error()

    def _error(self) -> EngineClosedError:
        if self.is_abandoned:
            return EngineClosedError("the engine belongs to the process this one was forked from")
        return EngineClosedError("the engine is closed")

    def enter(self) -> None:
        """Lets one piece of work in; `close` waits until it leaves.

        Raises:
            EngineClosedError: `close` was called.
        """
        self.check_open()
        with self._changed:
            self.check_open()
            self._num_working += 1

    def leave(self) -> None:
        """Ends what `enter` let in."""
        with self._changed:
            self._num_working -= 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """`enter` and `leave` around a block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()
