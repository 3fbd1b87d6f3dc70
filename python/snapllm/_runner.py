"""Runs neutral requests on the core: blocking, or on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

import msgspec

from snapllm import _core
from snapllm._embedding import EmbeddingRunner
from snapllm._gate import Gate
from snapllm._lowering import Lowered, is_quick, lower_chat, lower_completion, lower_marked
from snapllm._media import MediaPolicy
from snapllm._pump import AsyncPump, OutputIterator, Subscription
from snapllm._readers import ChatReader, CompletionReader, read_text
from snapllm._threads import Pool, Threads, see_failure
from snapllm.conversation import Message, has_media
from snapllm.errors import ModelNotFoundError, SnapLLMError
from snapllm.outputs import ChatEvent, CompletionChunk, Finish
from snapllm.params import ChatRequest, CompletionRequest

_Event = TypeVar("_Event")


class Answer(Generic[_Event]):
    """The events of one answer as they arrive, all that came together at once."""

    def __init__(
        self,
        subscription: Subscription,
        read: Callable[[_core.RequestOutput], list[_Event]],
        num_prompt_tokens: int,
    ) -> None:
        self.num_prompt_tokens = num_prompt_tokens
        self.num_cached_tokens = 0
        """Of the prompt, not computed but reused; known with the first events."""
        self.num_generated_tokens = 0
        """So far."""
        self.finish_reason: str | None = None
        """Why it ended, ``error`` among the reasons; None = it has not yet."""
        self._subscription = subscription
        self._read = read
        self._error: SnapLLMError | None = None  # that came with events before it

    async def next(self) -> list[_Event]:
        """Waits for the next events; an empty list after the last.

        Raises:
            SnapLLMError: The request failed.
        """
        if self._error is not None:
            raise self._error
        while outputs := await self._subscription.next():
            self._count(outputs)
            events = self._read_all(outputs)
            if events:
                finish = finish_of(events[-1])
                if self._error is None:
                    self.finish_reason = finish.finish_reason if finish else None
                return events
        return []

    def _read_all(self, outputs: list[_core.RequestOutput]) -> list[_Event]:
        """The events of outputs that came together, up to an error, which is raised next time."""
        events: list[_Event] = []
        for output in outputs:
            try:
                events += self._read(output)
            except SnapLLMError as error:
                if not events:
                    raise
                self._error = error
        return events

    def _count(self, outputs: list[_core.RequestOutput]) -> None:
        last = outputs[-1]
        self.num_cached_tokens = last.num_cached_tokens
        self.num_generated_tokens = last.num_generated_tokens
        self.finish_reason = last.finish_reason

    def close(self) -> None:
        """Ends the answer; cancels its request if it still runs."""
        self._subscription.close()


def finish_of(event: object) -> Finish | None:
    """The end of an answer, where the event is one; it is always the last."""
    last = event.finish if isinstance(event, CompletionChunk) else event
    return last if isinstance(last, Finish) else None


def _events(
    outputs: OutputIterator, read: Callable[[_core.RequestOutput], list[_Event]]
) -> Generator[_Event, None, None]:
    with contextlib.closing(outputs):
        for output in outputs:
            yield from read(output)


class _Abandoned(Exception):
    """Nobody waits for what a thread was to do."""


def _identity(lowered: Lowered) -> Lowered:
    return lowered


def _settle(
    returning: dict[str, asyncio.Future[None]], model_id: str, task: asyncio.Future[None]
) -> None:
    returning.pop(model_id, None)
    see_failure(task)  # whoever still waits sees it too


class Runner:
    """What `Model` and the server share: one way to run a request each.

    Args:
        core: The engine's core.
        max_waiting: See `Threads`.
    """

    def __init__(self, core: _core.Engine, max_waiting: int) -> None:
        self.core = core
        self.threads = Threads(max_waiting)
        """For what must not keep an event loop waiting."""
        self.gate = Gate()
        """Closed at the engine's end, which waits for what it has let in."""
        self.embeddings = EmbeddingRunner(core, self.gate, self.threads.embedding)
        self.media_policy = MediaPolicy()
        self.resolve: Callable[[ChatRequest], ChatRequest] = lambda request: request
        """Applied to every chat: turns ``model@context`` into the document's chat."""
        # Of each model: several answers of one request.
        self._submitting: dict[str, threading.Lock] = {}
        self._returning: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[str, asyncio.Future[None]]
        ] = weakref.WeakKeyDictionary()
        self._pumps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncPump] = (
            weakref.WeakKeyDictionary()
        )

    async def lower(self, request: ChatRequest) -> Lowered:
        """The chat as it would be submitted."""
        request = self.resolve(request)
        await self.bring_back(request.model)
        pool = self._pool_for(request)
        if pool is None:
            # Back it may be evicted for another before the loop hears of it.
            with contextlib.suppress(ModelNotFoundError):
                return lower_chat(self.core, request, self.media_policy, may_wait=False)
        pool = pool or self.threads.formatting
        return await pool.run(lower_chat, self.core, request, self.media_policy)

    async def lower_marked(
        self, request: ChatRequest, beginnings: list[list[Message]]
    ) -> tuple[Lowered, list[int]]:
        """The chat as `start_lowered` submits it, and how many of its tokens each beginning
        makes up; see `snapllm._lowering.lower_marked`."""
        begun = [
            self.resolve(msgspec.structs.replace(request, messages=messages)).messages
            for messages in beginnings
        ]
        request = self.resolve(request)
        await self.bring_back(request.model)
        pool = self._pool_for(request) or self.threads.formatting
        policy = self.media_policy
        return await pool.run(lower_marked, self.core, request, begun, policy)

    def _pool_for(self, request: ChatRequest | CompletionRequest) -> Pool | None:
        """Where a request is lowered, once it is resolved; None = by the event loop."""
        if is_quick(request):
            return None  # a thread would take longer to wake than it takes
        if isinstance(request, ChatRequest) and has_media(request.messages):
            return self.threads.media
        return self.threads.formatting

    def chat(self, request: ChatRequest, *, stream: bool) -> Generator[ChatEvent, None, None]:
        """The events of one answer, all at its end without `stream`; refuses bad requests
        before the first."""
        self.gate.check_open()
        lowered = lower_chat(self.core, self.resolve(request), self.media_policy)
        outputs = OutputIterator(self.core, next(lowered.core_requests(stream=stream)))
        return _events(outputs, self._reader(lowered).read)

    def completion(
        self, request: CompletionRequest, *, stream: bool
    ) -> Generator[CompletionChunk, None, None]:
        """The chunks of one answer, like `chat`."""
        self.gate.check_open()
        lowered = lower_completion(self.core, request)
        outputs = OutputIterator(self.core, next(lowered.core_requests(stream=stream)))
        return _events(outputs, CompletionReader().read)

    async def start_chat(self, request: ChatRequest, *, stream: bool) -> list[Answer[ChatEvent]]:
        """Submits a chat and returns its `n` answers, each to be closed by the caller.

        Without `stream` an answer's events come all at its end, and nothing wakes the loop
        before. Every refusal is raised here.
        """
        request = self.resolve(request)
        lower = functools.partial(lower_chat, self.core, request, self.media_policy)
        pool = self._pool_for(request)
        return self._chat_answers(*await self._submit(request.model, lower, stream, pool))

    async def start_lowered(self, lowered: Lowered, *, stream: bool) -> list[Answer[ChatEvent]]:
        """`start_chat` of a chat that was lowered before."""
        lower = functools.partial(_identity, lowered)
        submitted = await self._submit(lowered.model, lower, stream, self.threads.formatting)
        return self._chat_answers(*submitted)

    def _chat_answers(
        self, lowered: Lowered, subscriptions: list[Subscription]
    ) -> list[Answer[ChatEvent]]:
        num_tokens = len(lowered.tokens)
        return [Answer(s, self._reader(lowered).read, num_tokens) for s in subscriptions]

    @staticmethod
    def _reader(lowered: Lowered) -> ChatReader:
        assert lowered.chat is not None
        return ChatReader(lowered.chat, is_plain=lowered.is_plain)

    async def start_completion(
        self, request: CompletionRequest, *, stream: bool
    ) -> list[Answer[CompletionChunk]]:
        """Submits a completion and returns its `n` answers, like `start_chat`."""
        lowered, subscriptions = await self._submit_completion(request, stream)
        num_tokens = len(lowered.tokens)
        return [Answer(s, CompletionReader().read, num_tokens) for s in subscriptions]

    async def start(
        self, request: ChatRequest | CompletionRequest, *, stream: bool
    ) -> list[Answer[ChatEvent]]:
        """Submits either kind of request; the answers read alike. See `start_chat`."""
        if isinstance(request, ChatRequest):
            return await self.start_chat(request, stream=stream)
        lowered, subscriptions = await self._submit_completion(request, stream)
        return [Answer(s, read_text, len(lowered.tokens)) for s in subscriptions]

    async def bring_back(self, model_id: str) -> None:
        """Waits until the model is in memory, loading it again if it was evicted.

        Raises:
            ModelNotFoundError: No model is loaded under that id.
            OutOfMemoryError: It was evicted and there is no room for it.
        """
        info = self.core.model_info(model_id)
        if info.state == "resident":
            return
        loop = asyncio.get_running_loop()
        returning = self._returning.setdefault(loop, {})
        task = returning.get(info.id)
        if task is None:
            # One thread, however many requests wait.
            task = self.threads.returning.start(self.core.ensure_resident, info.id)
            returning[info.id] = task
            task.add_done_callback(functools.partial(_settle, returning, info.id))
        await asyncio.shield(task)

    def _pump(self) -> AsyncPump:
        loop = asyncio.get_running_loop()
        pump = self._pumps.get(loop)
        if pump is None:
            pump = self._pumps[loop] = AsyncPump(self.core, loop)
        return pump

    async def _submit_completion(
        self, request: CompletionRequest, stream: bool
    ) -> tuple[Lowered, list[Subscription]]:
        lower = functools.partial(lower_completion, self.core, request)
        return await self._submit(request.model, lower, stream, self._pool_for(request))

    async def _submit(
        self, model: str, lower: Callable[..., Lowered], stream: bool, pool: Pool | None
    ) -> tuple[Lowered, list[Subscription]]:
        """Lowers a request and submits it, in the pool; None = here, unless something has to be
        read from disk, or the model has to come back. `lower` is told then that it may not wait."""
        self.gate.check_open()
        await self.bring_back(model)
        pump = self._pump()
        if pool is None:
            with contextlib.suppress(ModelNotFoundError):
                lowered = lower(may_wait=False)
                [core_request] = lowered.core_requests(stream=stream)
                subscription = pump.try_submit(core_request)
                if subscription is not None:
                    return lowered, [subscription]
                lower = functools.partial(_identity, lowered)
        submission = pump.begin()
        is_abandoned = False

        def work() -> Lowered:
            if is_abandoned:
                raise _Abandoned
            lowered = lower()
            # One request's answers take their places in the queue before another's do: of several
            # that do not fit together, the first ones get in. Side by side each took a part of
            # them, and all were refused.
            lock = self._submitting.setdefault(lowered.model, threading.Lock())
            with lock if lowered.n > 1 else contextlib.nullcontext():
                for core_request in lowered.core_requests(stream=stream):
                    submission.submit(core_request)
            return lowered

        def abandon(task: asyncio.Future[Lowered] | None = None) -> None:
            if task is not None:
                see_failure(task)
            for subscription in submission.take():
                subscription.close()

        # Formatting long texts and compiling a grammar take milliseconds: not on the loop.
        # The shield lets the thread end, so that what it submitted can be abandoned.
        try:
            task = (pool or self.threads.formatting).start(work)
            lowered = await asyncio.shield(task)
        except asyncio.CancelledError:
            is_abandoned = True
            task.add_done_callback(abandon)
            raise
        except BaseException:
            abandon()
            raise
        return lowered, submission.take()
