"""What an event loop submits itself: only what need not wait."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import snapllm
from snapllm import _core

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
    with snapllm.Engine(num_threads=1, keep_alive_s=0.2) as engine:
        core, queue = engine.runner.core, _core.OutputQueue()
        model = engine.load(llama_path, "llama")
        request_id = core.try_submit(request([5, 6]), queue)
        assert request_id is not None
        finish(queue, request_id)
        while model.info.state != "evicted":
            time.sleep(0.01)
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
