"""Many callers at once: none waits for ever, none gets another's answer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest
from nano_models import Architecture, make_nano_model
from ties import decided_tokens

import snapllm

NUM_CALLERS = 10
LENGTH = {"max_tokens": 40, "ignore_eos": True}
OPTIONS = {"temperature": 0} | LENGTH


def prompt_of(caller: int) -> str:
    return f"caller {caller} says " + "abcdefghij"[caller] * (caller * 7 + 1)


def test_ten_threads_get_their_own_answers(engine: snapllm.Engine) -> None:
    models = [engine.model("llama"), engine.model("qwen")]
    alone = {
        (i, m.id): decided_tokens(m, prompt_of(i), **LENGTH)
        for i in range(NUM_CALLERS)
        for m in models
    }
    assert sum(map(len, alone.values())) > 10 * len(alone)

    def call(caller: int) -> list[tuple[tuple[int, str], list[int]]]:
        return [
            ((caller, m.id), m.generate(prompt_of(caller), **OPTIONS).tokens)
            for _ in range(5)
            for m in models
        ]

    with ThreadPoolExecutor(NUM_CALLERS) as threads:
        for answers in threads.map(call, range(NUM_CALLERS), timeout=120):
            for key, tokens in answers:
                assert tokens[: len(alone[key])] == alone[key]


def test_asyncio_callers_get_their_own_answers(model: snapllm.Model) -> None:
    alone = [decided_tokens(model, prompt_of(i), **LENGTH) for i in range(NUM_CALLERS)]
    assert sum(map(len, alone)) > 10 * len(alone)

    async def stream(caller: int) -> list[int]:
        pieces = model.agenerate_stream(prompt_of(caller), **OPTIONS)
        return [token async for piece in pieces for token in piece.tokens]

    async def all_at_once() -> list[list[int]]:
        return list(await asyncio.gather(*(stream(i) for i in range(NUM_CALLERS))))

    # Two event loops, one after the other: each gets a pump of its own.
    for _ in range(2):
        for tokens, decided in zip(asyncio.run(all_at_once()), alone, strict=True):
            assert tokens[: len(decided)] == decided


def test_cancelling_a_task_cancels_its_request(
    engine: snapllm.Engine, long_model: snapllm.Model
) -> None:
    def stats() -> Any:
        return next(each for each in engine.stats().models if each.id == long_model.id)

    async def until_running(number: int) -> None:
        for _ in range(3000):
            if stats().num_running == number and stats().num_waiting == 0:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"there are not {number} requests")

    async def main() -> None:
        answer = long_model.agenerate("x", max_tokens=30_000, ignore_eos=True, temperature=0)
        task = asyncio.create_task(answer)
        await until_running(1)
        task.cancel()
        await until_running(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    before = stats().num_cancelled
    asyncio.run(main())
    assert stats().num_cancelled == before + 1


def test_more_requests_than_sequences_all_get_answered(engine: snapllm.Engine) -> None:
    model = engine.model("qwen")
    with ThreadPoolExecutor(40) as threads:
        answers = list(
            threads.map(lambda i: model.generate(f"{i}", **OPTIONS).tokens, range(150), timeout=120)
        )
    assert all(len(tokens) == 40 for tokens in answers)


def num_process_threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def test_all_engines_compute_on_one_thread_and_eyes_leave_none_behind() -> None:
    """More OpenMP workers than cores make every step several times slower."""
    options = {"num_threads": 2, "context_size": 1024}
    with snapllm.Engine() as first:
        first.load_demo(**options, mmproj_path="").generate("Hello", **OPTIONS)
        before = num_process_threads()
        with snapllm.Engine() as second:
            own = num_process_threads() - before
            second.load_demo(**options).generate("Hello", **OPTIONS)
            assert num_process_threads() - before == own


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_how_many_threads_compute_changes_no_bit(
    architecture: Architecture, tmp_path: Path
) -> None:
    """Which is why the engine may choose their number anew for each step."""
    path = make_nano_model(tmp_path / "m.gguf", architecture)
    answers = []
    for num_threads in (1, 2):
        with snapllm.Engine(num_threads=num_threads) as engine:
            model = engine.load(path, context_size=2048)
            result = model.generate(
                prompt_of(9) * 5, max_tokens=300, num_logprobs=3, ignore_eos=True, temperature=0
            )
            answers.append((result.tokens, result.logprobs))
    assert len(answers[0][0]) == 300
    assert answers[0] == answers[1]
