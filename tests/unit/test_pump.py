"""The pump that carries outputs into an event loop, beside a queue of Python's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from snapllm import _core, _pump


class FakeQueue:
    """What `OutputQueue` does, without a core: outputs of requests in `urgent` do not wait."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.urgent: set[int] = set()
        self._outputs: list[Any] = []
        self._is_resting = False

    def push(self, request_id: int) -> None:
        self._outputs.append(SimpleNamespace(request_id=request_id, finish_reason=None))
        self._wake()

    def drain(self) -> list[Any]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        taken = [each for each in self._outputs if self._may_take(each)]
        self._outputs = [each for each in self._outputs if not self._may_take(each)]
        return taken

    def rest(self) -> None:
        self._is_resting = True

    def resume(self) -> None:
        self._is_resting = False
        self._wake()

    def _may_take(self, output: Any) -> bool:
        return not self._is_resting or output.request_id in self.urgent

    def _wake(self) -> None:
        if any(self._may_take(each) for each in self._outputs):
            os.eventfd_write(self.fd, 1)


class FakeCore:
    """Takes requests, whose outputs the test makes."""

    num_requests = 0

    def try_submit(self, request: object, queue: object) -> int:
        self.num_requests += 1
        return self.num_requests

    def cancel(self, request_id: int) -> None:
        pass


async def _until_all_ran() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    queue = FakeQueue()
    monkeypatch.setattr(_core, "OutputQueue", lambda: queue)
    monkeypatch.setattr(_pump, "_REST", 1e9)  # every rest is the longest
    monkeypatch.setattr(_pump, "_MAX_REST_S", 0.2)
    return queue


def test_a_stream_waits_for_one_rest_however_many_answers_begin_in_it(queue: FakeQueue) -> None:
    async def run() -> None:
        pump = _pump.AsyncPump(FakeCore(), asyncio.get_running_loop())  # type: ignore[arg-type]
        request: Any = None
        stream, other = pump.try_submit(request), pump.try_submit(request)
        assert stream is not None and other is not None
        queue.push(1)
        await _until_all_ran()
        assert len(await stream.next()) == 1
        assert pump.is_resting
        queue.push(1)
        queue.urgent.add(2)
        queue.push(2)
        time.sleep(2 * _pump._MAX_REST_S)  # both are due in one turn of the loop then
        arrivals = [asyncio.ensure_future(each.next()) for each in (other, stream)]
        await _until_all_ran()
        assert [arrival.done() for arrival in arrivals] == [True, True]
        stream.close()
        other.close()

    asyncio.run(run())


def test_what_goes_on_waits_while_the_loop_rests_and_what_begins_does_not(queue: FakeQueue) -> None:
    async def run() -> None:
        pump = _pump.AsyncPump(FakeCore(), asyncio.get_running_loop())  # type: ignore[arg-type]
        request: Any = None
        stream, other = pump.try_submit(request), pump.try_submit(request)
        assert stream is not None and other is not None
        queue.push(1)
        await _until_all_ran()
        assert len(await stream.next()) == 1
        queue.push(1)
        queue.urgent.add(2)
        queue.push(2)
        arrivals = [asyncio.ensure_future(each.next()) for each in (other, stream)]
        await _until_all_ran()
        assert [arrival.done() for arrival in arrivals] == [True, False]
        assert len(await arrivals[1]) == 1
        stream.close()
        other.close()

    asyncio.run(run())
