"""How outputs reach Python: a blocking iterator, and a pump for an event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import chain

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
            try:
                await self._waiter
            finally:
                self._waiter = None  # it keeps its loop alive
        outputs, self._outputs = self._outputs, []
        return outputs

    def close(self) -> None:
        """Cancels the request unless it has ended; what it still sends is dropped."""
        self._pump.leave(self._request_id, self.is_finished)


class Submission:
    """Requests that a thread beside the loop submits. `take` must follow on the loop."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump
        self.request_ids: list[int] = []

    def submit(self, request: _core.GenerateRequest) -> None:
        """Submits a request; any thread. It is cancelled where the loop is closed already."""
        request_id = self._pump.core.submit(request, self._pump.queue)
        self.request_ids.append(request_id)
        if self._pump.is_over:
            self._pump.core.cancel(request_id)

    def take(self) -> list[Subscription]:
        """The outputs of what was submitted, each to be closed when done with. Once only."""
        return self._pump.take(self)


# Handing outputs out takes the loop so long; what comes in so many times that long waits, and goes
# out together: a token that comes with others costs a fraction of one that wakes its reader alone,
# and the computing threads have their cores meanwhile. Answers that begin or end do not wait, and
# one that is alone does not: its tokens come as evenly as they are computed.
_REST = 3
_MAX_REST_S = 0.01


class AsyncPump:
    """Carries the outputs of all requests of one event loop.

    The core wakes the loop through one descriptor; everything that is waiting is
    taken at once and handed to the requests' subscriptions. The loop knows of the pump
    only while a request of its own runs. Requests that run when it is closed are cancelled.
    """

    def __init__(self, core: _core.Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.core = core
        self.queue = _core.OutputQueue()
        # Weak: whoever keeps a pump for each loop must not keep the loops alive.
        self._loop = weakref.ref(loop)
        # Outputs can arrive before the thread that submitted has said so; they wait
        # in a subscription made for them.
        self._subscriptions: dict[int, Subscription] = {}
        self._left: set[int] = set()  # cancelled, last output not yet seen
        self._submissions: set[Submission] = set()
        self._num_unfinished = 0  # of those subscribed to or left
        self._is_watched = False
        self.is_resting = False
        """Whether what goes on waits."""
        self._reader_number = 0  # of the reader in use, which the loop alone holds

    @property
    def is_over(self) -> bool:
        """Whether the loop is closed. Any thread."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    def begin(self) -> Submission:
        """For requests that another thread is to submit."""
        submission = Submission(self)
        self._submissions.add(submission)
        self._watch()
        return submission

    def take(self, submission: Submission) -> list[Subscription]:
        """Ends a submission; see `Submission.take`."""
        taken = [self._subscribe(request_id) for request_id in submission.request_ids]
        self._submissions.discard(submission)
        self._watch()
        return taken

    def try_submit(self, request: _core.GenerateRequest) -> Subscription | None:
        """Submits a request where that takes no time; None where a model or a prompt's KV must
        come first."""
        request_id = self.core.try_submit(request, self.queue)
        if request_id is None:
            return None
        subscription = self._subscribe(request_id)
        self._watch()
        return subscription

    def leave(self, request_id: int, is_finished: bool) -> None:
        """Forgets a request, and cancels it unless it has ended."""
        if self._subscriptions.pop(request_id, None) is not None and not is_finished:
            self._left.add(request_id)
            self.core.cancel(request_id)

    def drain(self) -> None:
        """Hands out what waits."""
        for output in self.queue.drain():
            if output.request_id not in self._left:
                self._subscribe(output.request_id).put(output)
            elif output.finish_reason is not None:
                self._left.discard(output.request_id)
            self._num_unfinished -= output.finish_reason is not None
        self._watch()

    def end(self, reader: _Reader) -> None:
        """The loop has let go of a reader: unless the pump wished so, it is closed."""
        if not self._is_watched or self._reader_number != reader.number:
            return
        self._is_watched = False
        open_ids = [key for key, each in self._subscriptions.items() if not each.is_finished]
        for request_id in chain(open_ids, *(each.request_ids for each in self._submissions)):
            self.core.cancel(request_id)
        self._subscriptions.clear()
        self._submissions.clear()

    def _subscribe(self, request_id: int) -> Subscription:
        subscription = self._subscriptions.get(request_id)
        if subscription is None:
            subscription = self._subscriptions[request_id] = Subscription(self, request_id)
            self._num_unfinished += 1
        return subscription

    def _watch(self) -> None:
        """Has the loop watch the queue as long as something is to come."""
        loop = self._loop()
        is_wanted = self._num_unfinished > 0 or bool(self._submissions)
        if is_wanted == self._is_watched or loop is None or loop.is_closed():
            return
        self._is_watched = is_wanted
        if is_wanted:
            self._reader_number += 1
            loop.add_reader(self.queue.fd, _Reader(self, self._reader_number))
        else:
            loop.remove_reader(self.queue.fd)

    def rest(self, took_s: float) -> None:
        """Lets what goes on wait a while, unless it does already.

        Args:
            took_s: How long the loop was about what waited before.
        """
        loop = self._loop()
        is_alone = self._num_unfinished < 2
        if not self._is_watched or is_alone or self.is_resting or loop is None:
            return
        self.is_resting = True
        self.queue.rest()
        loop.call_later(min(_REST * took_s, _MAX_REST_S), self._resume)

    def _resume(self) -> None:
        self.is_resting = False
        self.queue.resume()


class _Reader:
    """What a loop calls when outputs wait. It alone holds it, and no longer than until its end."""

    def __init__(self, pump: AsyncPump, number: int) -> None:
        self._pump = pump
        self.number = number

    def __call__(self) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        has_left_some = self._pump.is_resting
        self._pump.drain()
        # What was left waits for this rest alone: the next one begins when it was handed out.
        if not has_left_some:
            loop.call_soon(self._rest, began_at)  # behind all those that were woken

    def _rest(self, began_at: float) -> None:
        self._pump.rest(asyncio.get_running_loop().time() - began_at)

    def __del__(self) -> None:
        self._pump.end(self)
