"""Taking turns on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from snapllm.errors import QueueFullError


class Places:
    """Lets a number of requests in at once; others wait, in their order. One event loop only.

    Args:
        num_places: How many are in at once.
    """

    def __init__(self, num_places: int) -> None:
        self._free = asyncio.Semaphore(num_places)
        self.num_in = self.num_waiting = 0
        """Requests that have a place, and that wait for one."""

    @contextlib.asynccontextmanager
    async def place(self, max_waiting: int) -> AsyncIterator[None]:
        """Waits for a place, which the block has then.

        Raises:
            QueueFullError: So many wait already.
        """
        if self._free.locked() and self.num_waiting >= max_waiting:
            raise QueueFullError("too many contexts are on their way in or out; try again later")
        self.num_waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.num_waiting -= 1
        self.num_in += 1
        try:
            yield
        finally:
            self.num_in -= 1
            self._free.release()
