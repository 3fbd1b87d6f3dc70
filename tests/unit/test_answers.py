"""Reading the answers of a request."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from snapllm._runner import Answer
from snapllm.errors import EngineClosedError, GenerationFailedError
from snapllm.outputs import Finish, TextDelta
from snapllm.server.answers import collect, collect_all, merge


class FakeAnswer:
    """An answer whose events are known, and how it ends after them."""

    def __init__(self, *batches: list[Any], failure: Exception | None = None) -> None:
        self._batches, self._failure = list(batches), failure

    async def next(self) -> list[Any]:
        if not self._batches and self._failure is not None:
            raise self._failure
        return self._batches.pop(0) if self._batches else []


def fake(*batches: list[Any], failure: Exception | None = None) -> Answer[Any]:
    return cast("Answer[Any]", FakeAnswer(*batches, failure=failure))


def test_an_answer_that_the_engine_cut_off_is_an_error_beside_others_too() -> None:
    def cut_off() -> Answer[Any]:
        return fake([TextDelta("Hel")], failure=EngineClosedError("closed"))

    async def merged(*answers: Answer[Any]) -> None:
        async for _ in merge(answers):
            pass

    whole = [TextDelta("Hello"), Finish(finish_reason="stop")]
    for read in (
        lambda: collect(cut_off()),
        lambda: collect_all([fake(whole), cut_off()]),
        lambda: merged(cut_off()),
        lambda: merged(fake(whole), cut_off()),
    ):
        with pytest.raises(EngineClosedError):
            asyncio.run(read())
    assert asyncio.run(collect(fake(whole))) == whole


def test_what_came_with_an_error_is_passed_on_before_it() -> None:
    batches = [["a"], ["b", "c", "error"]]

    class Outputs:
        async def next(self) -> list[Any]:
            return [SimpleNamespace(text=text, **COUNTS) for text in batches.pop(0)]

    def read(output: Any) -> list[str]:
        if output.text == "error":
            raise GenerationFailedError("it failed")
        return [output.text]

    async def run() -> None:
        answer: Answer[str] = Answer(Outputs(), read, 1)  # type: ignore[arg-type]
        assert await answer.next() == ["a"]
        assert await answer.next() == ["b", "c"]
        assert answer.finish_reason == "error"
        for _ in range(2):
            with pytest.raises(GenerationFailedError):
                await answer.next()

    asyncio.run(run())


COUNTS = {"num_cached_tokens": 0, "num_generated_tokens": 1, "finish_reason": "error"}
