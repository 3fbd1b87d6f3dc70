"""The threads of an engine: no kind of work waits for another, and none for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from snapllm._threads import Pool, Threads, run_apart
from snapllm.errors import QueueFullError


def test_no_kind_of_work_waits_for_another() -> None:
    async def run() -> None:
        threads, go_on = Threads(max_waiting=64), threading.Event()
        waiting = [threads.contexts.start(go_on.wait) for _ in range(40)]
        for pool in (threads.formatting, threads.media, threads.files, threads.loading):
            assert await asyncio.wait_for(pool.run(divmod, 7, 3), 5) == (2, 1)
        assert await asyncio.wait_for(run_apart(divmod, 7, 3), 5) == (2, 1)
        assert not any(task.done() for task in waiting)
        go_on.set()
        assert all(await asyncio.gather(*waiting))

    asyncio.run(run())


def test_what_waits_beyond_the_bound_is_refused_until_there_is_room_again() -> None:
    async def run() -> None:
        pool, go_on = Pool("context", 1, max_waiting=1), threading.Event()
        waiting = [pool.start(go_on.wait) for _ in range(2)]
        with pytest.raises(QueueFullError, match="too many context requests are waiting"):
            await pool.run(go_on.wait)
        waiting.pop().cancel()
        await asyncio.sleep(0)  # its place is free then
        assert not waiting[0].done()
        waiting.append(pool.start(go_on.wait))
        go_on.set()
        assert all(await asyncio.gather(*waiting))

    asyncio.run(run())


@pytest.mark.parametrize("is_apart", [False, True])
def test_a_call_goes_on_though_nobody_waits_for_it_any_more(
    is_apart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    go_on, has_ended = threading.Event(), threading.Event()

    def call() -> None:
        go_on.wait()
        has_ended.set()
        raise RuntimeError("for nobody")

    async def run() -> None:
        run_call = run_apart(call) if is_apart else Pool("file", 1).run(call)
        task = asyncio.ensure_future(run_call)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        go_on.set()
        assert await asyncio.to_thread(has_ended.wait, 5)
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert caplog.records == []
