"""When the contexts are removed whose time is over."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable

from snapllm.errors import EngineClosedError, SnapLLMError

log = logging.getLogger("snapllm.contexts")

DELAY_S = 5.0
"""After a context's time is over, and between attempts: what ends together is removed together."""
MAX_SLEEP_S = 3600.0
"""The time of day may be set while it sleeps."""


class ExpiryTimer:
    """Has expired contexts removed on a thread of its own: nobody waits for that, and it is done
    though nobody asks for anything. Any thread may use it.

    Args:
        remove: A method that removes them and returns when the next one is to be, in Unix time;
            None = there is none. Its object is not kept alive.
    """

    def __init__(self, remove: Callable[[], float | None]) -> None:
        self._remove = weakref.WeakMethod(remove)
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._at = 0.0
        self._is_stopped = False

    def set(self, at: float | None) -> None:
        """Has a look taken soon after `at`, in Unix time; earlier ones stay."""
        if at is None:
            return
        with self._lock:
            if self._is_stopped or (self._timer is not None and self._at <= at):
                return
            if self._timer is not None:
                self._timer.cancel()
            wait_s = min(max(0.0, at - time.time()), MAX_SLEEP_S) + DELAY_S
            # Within the standard library it sleeps: the interpreter's end does not wait for it.
            timer = threading.Timer(wait_s, self._look)
            timer.name, timer.daemon = "snapllm-expiry", True
            self._timer, self._at = None, at
            try:
                timer.start()
            except (RuntimeError, MemoryError) as error:  # what is set next tries again
                log.warning("expired contexts are not removed now: %s", error)
            else:
                self._timer = timer

    def stop(self) -> None:
        """Has nothing removed any more."""
        # Without the lock, which in a forked child may be held for ever.
        self._is_stopped = True
        if (timer := self._timer) is not None:
            timer.cancel()

    def _look(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # set anew just as its time was over
            self._timer = None
        remove = self._remove()
        if remove is None or self._is_stopped:
            return
        try:
            self.set(remove())
            return
        except EngineClosedError:
            return
        except SnapLLMError as error:
            log.warning("expired contexts cannot be removed: %s", error)
        except Exception:  # without expiry the disk would fill up
            log.exception("expired contexts cannot be removed")
        self.set(time.time())
