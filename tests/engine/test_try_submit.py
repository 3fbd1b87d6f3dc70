"""What an event loop submits itself: only what need not wait."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import snapllm
from snapllm import _core, _runner
from snapllm.conversation import Message
from snapllm.params import ChatRequest

PROMPT = [5 + i % 60 for i in range(600)]


def request(prompt: list[int]) -> _core.GenerateRequest:
    return _core.GenerateRequest(model_id="llama", prompt=prompt, max_tokens=2)


def finish(queue: _core.OutputQueue, request_id: int) -> None:
    """Waits for the request's last output."""
    while True:
        queue.wait()
        for output in queue.drain():
            assert output.request_id == request_id
            if output.finish_reason is not None:
                return


def test_a_model_that_has_to_come_back_is_not_waited_for(llama_path: Path) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        core, queue = engine.runner.core, _core.OutputQueue()
        model = engine.load(llama_path, "llama")
        request_id = core.try_submit(request([5, 6]), queue)
        assert request_id is not None
        finish(queue, request_id)
        engine.load(llama_path, "llama", keep_alive_s=0.05)
        wait_until(lambda: model.info.state == "evicted")
        assert core.try_submit(request([5, 6]), queue) is None
        assert model.info.state == "evicted"
        finish(queue, core.submit(request([5, 6]), queue))


def test_what_is_on_disk_only_is_not_waited_for(llama_path: Path, tmp_path: Path) -> None:
    for is_second in (False, True):
        with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
            core, queue = engine.runner.core, _core.OutputQueue()
            engine.load(llama_path, "llama")
            if is_second:
                assert core.try_submit(request(PROMPT), queue) is None
                finish(queue, core.submit(request(PROMPT), queue))
            request_id = core.try_submit(request(PROMPT), queue)
            assert request_id is not None
            finish(queue, request_id)


def test_bad_requests_are_refused_and_so_is_all_at_the_end(llama_path: Path) -> None:
    engine = snapllm.Engine(num_threads=1)
    core, queue = engine.runner.core, _core.OutputQueue()
    engine.load(llama_path, "llama")
    with pytest.raises(snapllm.InvalidRequestError):
        core.try_submit(request([]), queue)
    engine.close()
    with pytest.raises(snapllm.EngineClosedError):
        core.try_submit(request([5]), queue)


def test_a_model_that_left_again_before_the_loop_hears_of_it_is_waited_for_elsewhere(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []
    lower_chat = _runner.lower_chat

    def lower(*arguments: Any, **options: Any) -> Any:
        lowered = lower_chat(*arguments, **options)
        used.append(threading.current_thread() is threading.main_thread())
        return lowered

    async def come_and_go(self: _runner.Runner, model_id: str) -> None:
        pass

    async def count(engine: snapllm.Engine) -> None:
        await engine.runner.lower(ChatRequest(model="llama", messages=[Message("user", "Hi")]))

    monkeypatch.setattr(_runner, "lower_chat", lower)
    # Far longer than from a use to the next one below.
    with snapllm.Engine(num_threads=1, keep_alive_s=3) as engine:
        model = engine.load(llama_path, "llama")
        asyncio.run(count(engine))
        wait_until(lambda: model.info.state == "evicted")
        with monkeypatch.context() as patch:
            patch.setattr(_runner.Runner, "bring_back", come_and_go)
            asyncio.run(count(engine))
        assert used == [True, False]
        wait_until(lambda: model.info.state == "evicted")
        asyncio.run(count(engine))  # once it is back it takes no thread
        assert used == [True, False, True]
