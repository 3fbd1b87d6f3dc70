"""Reading the answers of a request."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from snapllm._runner import Answer
from snapllm.errors import EngineClosedError
from snapllm.outputs import CompletionChunk, Finish, TextDelta
from snapllm.server.answers import collect, collect_all, merge

CANCELLED = Finish(finish_reason="cancelled")


class FakeAnswer:
    """An answer whose events are known."""

    def __init__(self, *batches: list[Any]) -> None:
        self._batches = list(batches)

    async def next(self) -> list[Any]:
        return self._batches.pop(0) if self._batches else []


def fake(*batches: list[Any]) -> Answer[Any]:
    return cast("Answer[Any]", FakeAnswer(*batches))


@pytest.mark.parametrize(
    "batches",
    [
        [[TextDelta("Hel")], [CANCELLED]],
        [[TextDelta("Hel"), CANCELLED]],
        [[CompletionChunk(text="Hel")], [CompletionChunk(finish=CANCELLED)]],
    ],
)
def test_an_answer_that_the_engine_cut_off_is_an_error(batches: list[list[Any]]) -> None:
    async def merged(*answers: Answer[Any]) -> None:
        async for _ in merge(answers):
            pass

    whole = [TextDelta("Hello"), Finish(finish_reason="stop")]
    for read in (
        lambda: collect(fake(*batches)),
        lambda: collect_all([fake(whole), fake(*batches)]),
        lambda: merged(fake(*batches)),
        lambda: merged(fake(whole), fake(*batches)),
    ):
        with pytest.raises(EngineClosedError):
            asyncio.run(read())
    assert asyncio.run(collect(fake(whole))) == whole
