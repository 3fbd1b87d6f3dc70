"""Event loops and engines, each of which may end first."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nano_models import make_nano_model

import snapllm
from snapllm import _pump, _runner
from snapllm.params import CompletionRequest, SamplingOptions

LONG = {"max_tokens": 20_000, "ignore_eos": True, "temperature": 0.0}


@pytest.fixture
def long_path(tmp_path: Path) -> Path:
    """A model that takes long over an answer, where it may."""
    return make_nano_model(tmp_path / "m.gguf", context_size=32768)


@pytest.fixture
def own_engine(long_path: Path) -> Iterator[snapllm.Engine]:
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(long_path)
        yield engine


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    """A loop that nobody closes, and that may be closed in the midst of its tasks."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    return loop


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def count(engine: snapllm.Engine, name: str) -> int:
    return int(getattr(engine.stats().models[0], name))


def test_a_loop_keeps_nothing_of_an_engine_that_was_closed(long_path: Path) -> None:
    async def use() -> weakref.ref[Any]:
        with snapllm.Engine(num_threads=1) as engine:
            model = engine.load(long_path)
            await model.agenerate("a", max_tokens=2)
            await model.agenerate("a " * 4000, max_tokens=2)  # lowered by a thread
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(model.agenerate("a", **LONG), 0.01)
            return weakref.ref(engine.runner.core)

    async def run() -> None:
        core = await use()
        deadline = time.monotonic() + 10
        while core() is not None:  # the end of the last one is on its way to the loop
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
            gc.collect()

    asyncio.run(run())


@pytest.mark.parametrize("prompt", ["a", "a " * 4000], ids=["quick", "by_a_thread"])
def test_a_loop_that_is_closed_ends_its_requests(
    own_engine: snapllm.Engine, loop: asyncio.AbstractEventLoop, prompt: str
) -> None:
    task = loop.create_task(own_engine.model().agenerate(prompt, **LONG))
    while not count(own_engine, "num_running"):
        loop.run_until_complete(asyncio.sleep(0.005))
    loop.close()
    wait_until(lambda: count(own_engine, "num_cancelled") == 1)
    del task


@pytest.fixture
def long_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop looks for outputs a few times a second only."""
    monkeypatch.setattr(_pump, "_REST", 1e6)
    monkeypatch.setattr(_pump, "_MAX_REST_S", 0.25)


@pytest.mark.usefixtures("long_rests")
def test_outputs_that_come_while_the_loop_rests_go_out_together(
    own_engine: snapllm.Engine,
) -> None:
    async def run() -> tuple[list[int], str]:
        request = CompletionRequest(
            model=own_engine.model().id,
            prompt="a",
            max_tokens=2000,
            sampling=SamplingOptions(ignore_eos=True),
        )
        [answer] = await own_engine.runner.start_completion(request, stream=True)
        [other] = await own_engine.runner.start_completion(request, stream=True)
        sizes = []
        while chunks := await answer.next():
            sizes.append(sum(len(chunk.tokens) for chunk in chunks))
        while await other.next():
            pass
        # Another request may begin in a rest, and after one that nothing followed.
        text = (await own_engine.model().agenerate("b", max_tokens=3, temperature=0)).text
        await asyncio.sleep(0.5)
        assert text == (await own_engine.model().agenerate("b", max_tokens=3, temperature=0)).text
        return sizes, text

    sizes, text = asyncio.run(run())
    assert sum(sizes) == 2000
    assert len(sizes) < 200
    assert text == own_engine.model().generate("b", max_tokens=3, temperature=0).text


def test_answers_that_begin_or_end_do_not_wait_for_the_end_of_a_rest(
    own_engine: snapllm.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pump, "_REST", 1e9)
    monkeypatch.setattr(_pump, "_MAX_REST_S", 1e6)

    async def run() -> None:
        model = own_engine.model()
        running = [model.agenerate_stream(prompt, **LONG) for prompt in ("a", "b")]
        await asyncio.gather(*(anext(stream) for stream in running))
        await asyncio.sleep(0)  # from here on nothing of them comes
        await asyncio.wait_for(model.agenerate("b", max_tokens=3), 60)
        beginning = model.agenerate_stream("c", **LONG)
        await asyncio.wait_for(anext(beginning), 60)
        for stream in (*running, beginning):
            await stream.aclose()

    asyncio.run(run())


@pytest.mark.usefixtures("long_rests")
def test_a_loop_that_is_closed_while_it_rests_ends_its_requests(
    own_engine: snapllm.Engine, loop: asyncio.AbstractEventLoop
) -> None:
    stream = own_engine.model().agenerate_stream("a", **LONG)
    loop.run_until_complete(anext(stream))  # the first output goes out at once
    loop.close()
    wait_until(lambda: count(own_engine, "num_cancelled") == 1)


@pytest.mark.parametrize("is_submitted_first", [False, True])
def test_a_loop_that_is_closed_ends_what_a_thread_submits_for_it(
    own_engine: snapllm.Engine,
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    is_submitted_first: bool,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    lower_completion = _runner.lower_completion

    def wait_and_lower(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return lower_completion(*arguments)

    monkeypatch.setattr(_runner, "lower_completion", wait_and_lower)
    task = loop.create_task(own_engine.model().agenerate("a " * 4000, **LONG))
    while not begun.is_set():
        loop.run_until_complete(asyncio.sleep(0.005))
    if is_submitted_first:
        go_on.set()
        wait_until(lambda: count(own_engine, "num_running") == 1)
    loop.close()
    go_on.set()
    wait_until(lambda: count(own_engine, "num_cancelled") == 1)
    del task


def test_the_answers_of_one_request_take_their_places_together(
    own_engine: snapllm.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side each request would take a part of the last places, and none would get in."""
    order: list[_pump.Submission] = []
    submit = _pump.Submission.submit

    def slowly_submit(submission: _pump.Submission, request: Any) -> None:
        order.append(submission)
        time.sleep(0.005)
        submit(submission, request)

    async def run() -> None:
        request = CompletionRequest(model=own_engine.model().id, prompt="a", n=8, max_tokens=1)
        start = own_engine.runner.start_completion
        for answers in await asyncio.gather(*(start(request, stream=False) for _ in range(3))):
            for answer in answers:
                await answer.next()

    monkeypatch.setattr(_pump.Submission, "submit", slowly_submit)
    asyncio.run(run())
    assert [order.count(submission) for submission in order[::8]] == [8, 8, 8]
    assert all(len(set(order[first : first + 8])) == 1 for first in range(0, 24, 8))
