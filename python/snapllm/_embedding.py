"""Runs embedding requests on the core: blocking, or on an event loop."""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from itertools import accumulate

import msgspec

from snapllm import _core
from snapllm._gate import Gate
from snapllm._threads import Pool
from snapllm.errors import ContextLengthExceededError, InvalidRequestError
from snapllm.params import EmbeddingRequest

# Handed to the core at once, one input at least: an abandoned request goes on no longer than these,
# and so long Ctrl-C waits. The core computes no more tokens in a step.
_MAX_INPUTS = 16
_MAX_TOKENS = 2048


_OF_INPUT = re.compile(r"input (\d+)(.*)", re.DOTALL)


class RawEmbeddings(msgspec.Struct, frozen=True):
    """Vectors as little-endian 32-bit floats, in the order of the inputs."""

    vectors: list[bytes]
    num_tokens: int


class EmbeddingRunner:
    """Runs embedding requests; any thread may use it.

    Args:
        core: Computes them, a few inputs at once.
        gate: Lets requests in; one that is in may hand all its inputs to the core.
        threads: Where those of event loops wait for the core.
    """

    def __init__(self, core: _core.Engine, gate: Gate, threads: Pool) -> None:
        self._core, self._gate, self._threads = core, gate, threads

    def run(self, request: EmbeddingRequest) -> RawEmbeddings:
        """Computes the vectors of all inputs.

        Raises:
            EngineClosedError: The engine was closed, or its end did not wait any longer.
        """
        with self._gate.working():
            return self._run(request, threading.Event())

    def _run(self, request: EmbeddingRequest, cancelled: threading.Event) -> RawEmbeddings:
        inputs = [self._tokens(request, i) for i in range(len(request.inputs))]
        vectors: list[bytes] = []
        while len(vectors) < len(inputs) and not cancelled.is_set():
            first = len(vectors)
            batch = _core.EmbedRequest(
                model_id=request.model,
                inputs=_batch(inputs, first),
                pooling=request.pooling,
                dimensions=request.dimensions,
            )
            try:
                vectors += self._core.embed(batch)
            except InvalidRequestError as error:
                raise _named(error, request.inputs_field, first) from None
        return RawEmbeddings(vectors, sum(map(len, inputs)))

    def _tokens(self, request: EmbeddingRequest, index: int) -> list[int]:
        given = request.inputs[index]
        if not isinstance(given, str):
            return given
        try:
            return self._core.tokenize(request.model, given, True, False)
        except ContextLengthExceededError:
            # The core speaks of a prompt there, which leaves room for an answer.
            info = self._core.model_info(request.model)
            raise ContextLengthExceededError(
                f"{request.inputs_field}[{index}] has more tokens than the context of model "
                f"{info.id}, {info.context_size}",
                param=request.inputs_field,
            ) from None
        except InvalidRequestError as error:
            error.param = request.inputs_field
            raise

    async def arun(self, request: EmbeddingRequest) -> RawEmbeddings:
        """`run` for asyncio. Cancelling the task ends the request soon.

        Raises:
            QueueFullError: Too many requests wait.
        """
        cancelled = threading.Event()
        try:
            # It has begun, though other requests may have its threads for a while.
            with self._gate.working():
                return await self._threads.start(self._run, request, cancelled)
        finally:
            cancelled.set()


def _batch(inputs: list[list[int]], first: int) -> list[list[int]]:
    """The inputs from `first` on that are handed to the core together."""
    some = inputs[first : first + _MAX_INPUTS]
    num_fitting = bisect_right(list(accumulate(map(len, some))), _MAX_TOKENS)
    return some[: max(1, num_fitting)]


def _named(error: InvalidRequestError, field: str, first: int) -> InvalidRequestError:
    """The core's error by the caller's name of the input, which it counts from a batch's first."""
    found = _OF_INPUT.fullmatch(error.message)
    if found is None:
        return error
    return type(error)(f"{field}[{first + int(found[1])}]{found[2]}", param=field)
