"""How outputs reach Python: a blocking iterator, and a pump for an event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterator

from snapllm import _core


class OutputIterator(Iterator[_core.RequestOutput]):
    """Submits a request and iterates over its outputs, sleeping in C++ in between.

    Closing or dropping it before the end cancels the request.
    """

    def __init__(self, core: _core.Engine, request: _core.GenerateRequest) -> None:
        self._core = core
        self._is_open = False
        self._waiting: deque[_core.RequestOutput] = deque()
        self._queue = _core.OutputQueue()
        self._request_id = core.submit(request, self._queue)
        self._is_open = True

    def __next__(self) -> _core.RequestOutput:
        while not self._waiting:
            if not self._is_open:
                raise StopIteration
            self._queue.wait()
            self._waiting.extend(self._queue.drain())
        output = self._waiting.popleft()
        if output.finish_reason is not None:
            self._is_open = False
        return output

    def cancel(self) -> None:
        """Cancels the request, from any thread: the last output says so then."""
        self._core.cancel(self._request_id)

    def close(self) -> None:
        """Cancels the request unless it has ended."""
        if self._is_open:
            self._is_open = False
            self._waiting.clear()
            self._core.cancel(self._request_id)

    def __del__(self) -> None:
        self.close()


class Subscription:
    """The outputs of one request on their way to its reader. Event loop only."""

    def __init__(self, pump: AsyncPump, request_id: int) -> None:
        self._pump = pump
        self._request_id = request_id
        self._outputs: list[_core.RequestOutput] = []
        self._waiter: asyncio.Future[None] | None = None
        self.is_finished = False
        """Whether the last output has arrived."""

    def put(self, output: _core.RequestOutput) -> None:
        """Adds an output and wakes the reader."""
        self._outputs.append(output)
        self.is_finished = output.finish_reason is not None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> list[_core.RequestOutput]:
        """Waits for outputs and takes all there are; an empty list after the last."""
        while not self._outputs and not self.is_finished:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        outputs, self._outputs = self._outputs, []
        return outputs

    def close(self) -> None:
        """Cancels the request unless it has ended; what it still sends is dropped."""
        self._pump.leave(self._request_id, self.is_finished)


class AsyncPump:
    """Carries the outputs of all requests of one event loop.

    The core wakes the loop through one descriptor; everything that is waiting is
    taken at once and handed to the requests' subscriptions.
    """

    def __init__(self, core: _core.Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        # Weak: whoever keeps a pump for each loop must not keep the loops alive.
        self._loop = weakref.ref(loop)
        self._queue = _core.OutputQueue()
        # Outputs can arrive before the thread that submitted has said so; they wait
        # in a subscription made for them.
        self._subscriptions: dict[int, Subscription] = {}
        self._left: set[int] = set()  # cancelled, last output not yet seen
        loop.add_reader(self._queue.fd, self._drain)

    def close(self) -> None:
        """Stops watching the queue."""
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._queue.fd)

    def submit(self, request: _core.GenerateRequest) -> int:
        """Submits a request; any thread. `subscribe` must follow on the loop."""
        return self._core.submit(request, self._queue)

    def try_submit(self, request: _core.GenerateRequest) -> int | None:
        """`submit` where it takes no time; None where a model or a prompt's KV must come first."""
        return self._core.try_submit(request, self._queue)

    def subscribe(self, request_id: int) -> Subscription:
        """The outputs of a submitted request; to be closed when done with."""
        subscription = self._subscriptions.get(request_id)
        if subscription is None:
            subscription = self._subscriptions[request_id] = Subscription(self, request_id)
        return subscription

    def leave(self, request_id: int, is_finished: bool) -> None:
        """Forgets a request, and cancels it unless it has ended."""
        if self._subscriptions.pop(request_id, None) is not None and not is_finished:
            self._left.add(request_id)
            self._core.cancel(request_id)

    def _drain(self) -> None:
        for output in self._queue.drain():
            if output.request_id not in self._left:
                self.subscribe(output.request_id).put(output)
            elif output.finish_reason is not None:
                self._left.discard(output.request_id)
