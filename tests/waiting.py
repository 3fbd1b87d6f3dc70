"""Waiting for what happens soon, with a limit that only a failure reaches."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 30.0


def wait_until(condition: Callable[[], object], what: str = "it never came to be") -> None:
    """Waits until the condition holds; fails with `what` where it takes far too long."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
