"""Requests that take turns."""

from __future__ import annotations

import asyncio

import pytest

from snapllm.errors import QueueFullError
from snapllm.server.places import Places


def test_some_are_in_at_once_some_wait_in_their_order_and_the_rest_is_refused() -> None:
    async def run() -> None:
        places, order, leaving = Places(2), [], asyncio.Event()

        async def use(number: int) -> None:
            async with places.place(max_waiting=3):
                order.append(number)
                await leaving.wait()

        tasks = [asyncio.ensure_future(use(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert (order, places.num_in, places.num_waiting) == ([0, 1], 2, 3)
        with pytest.raises(QueueFullError):
            await use(5)
        tasks[2].cancel()  # whoever leaves is not waited for
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(use(6)))
        leaving.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (order, places.num_in, places.num_waiting) == ([0, 1, 3, 4, 6], 0, 0)

    asyncio.run(run())
