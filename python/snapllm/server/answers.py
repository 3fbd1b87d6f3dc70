"""Reading the answers of a request, one or several at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar

from aiohttp import web

from snapllm._runner import Answer
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ChatResult, Completion, Usage
from snapllm.server.keys import threads_of
from snapllm.server.log_lines import note_started

_Event = TypeVar("_Event")

QUICK_LOGPROBS = 2000
"""Of answers and prompts, with the alternatives: more are written beside the event loop."""


@contextlib.contextmanager
def naming_grammar(field: str) -> Iterator[None]:
    """Names the field that a grammar was made of where it is one that cannot be used."""
    try:
        yield
    except InvalidRequestError as error:
        if error.param == "grammar" and field:
            error.param, error.message = field, error.message.replace("grammar", field, 1)
        raise


@contextlib.contextmanager
def answering(
    request: web.Request, model_id: str, answers: Sequence[Answer[_Event]]
) -> Iterator[None]:
    """Closes the answers at the end, which cancels those that still run; the request's log line
    counts them."""
    note_started(request, model_id, answers)
    try:
        yield
    finally:
        for answer in answers:
            answer.close()


async def collect(answer: Answer[_Event]) -> list[_Event]:
    """All events of an answer."""
    events: list[_Event] = []
    while batch := await answer.next():
        events.extend(batch)
    return events


async def collect_all(answers: Sequence[Answer[_Event]]) -> list[list[_Event]]:
    """All events of all answers, in the answers' order."""
    if len(answers) == 1:
        return [await collect(answers[0])]
    tasks = [asyncio.ensure_future(collect(answer)) for answer in answers]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:  # those that are left where one fails
            task.cancel()


async def written(
    request: web.Request, results: Sequence[ChatResult | Completion], write: Callable[[], bytes]
) -> bytes:
    """The body that tells of whole answers; those with many log probabilities take seconds.

    Args:
        request: The request.
        results: The answers.
        write: Makes the body, on any thread.
    """
    told = [result.logprobs for result in results]
    told += [result.prompt_logprobs for result in results if isinstance(result, Completion)]
    if sum(1 + len(entry.top) for entries in told for entry in entries) <= QUICK_LOGPROBS:
        return write()
    return await threads_of(request).parsing.run(write)


def usage_so_far(groups: Sequence[Sequence[Answer[_Event]]]) -> Usage:
    """The tokens of the answers to each prompt so far; each prompt counts once."""
    return Usage(
        num_prompt_tokens=sum(group[0].num_prompt_tokens for group in groups),
        num_cached_tokens=sum(group[0].num_cached_tokens for group in groups),
        num_generated_tokens=sum(each.num_generated_tokens for group in groups for each in group),
    )


async def merge(answers: Sequence[Answer[_Event]]) -> AsyncIterator[tuple[int, list[_Event]]]:
    """Yields the events of all answers as they come, with the answer's index."""
    if len(answers) == 1:
        while batch := await answers[0].next():
            yield 0, batch
        return
    waiting = {asyncio.ensure_future(answer.next()): i for i, answer in enumerate(answers)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = waiting.pop(task)
                if batch := task.result():
                    yield index, batch
                    waiting[asyncio.ensure_future(answers[index].next())] = index
    finally:
        for task in waiting:
            task.cancel()
