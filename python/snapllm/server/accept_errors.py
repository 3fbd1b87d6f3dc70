"""Connections that cannot be accepted for the time being."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import Any

log = logging.getLogger("snapllm.server")

WARNING_INTERVAL_S = 30.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class AcceptErrors:
    """An exception handler for event loops: a line once in a while where resources run out.

    asyncio tries again by itself, and reports each try with a traceback, up to a hundred in a
    second.
    """

    def __init__(self) -> None:
        self._warned_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handles what the loop could not; passes everything else on."""
        error, message = context.get("exception"), context.get("message", "")
        if isinstance(error, ValueError) and "_start_serving" in message:
            return  # one of its later tries, after the server has closed its socket
        is_accept = "accept" in message
        if not is_accept or not isinstance(error, OSError) or error.errno not in _EXHAUSTED:
            loop.default_exception_handler(context)
            return
        now = time.monotonic()
        if now - self._warned_at >= WARNING_INTERVAL_S:
            self._warned_at = now
            log.warning(
                "connections have to wait: %s; a higher limit of open files (ulimit -n) may help",
                error.strerror,
            )
