"""How an engine ends: closed in the midst of requests, closed with time to spare, or dropped."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nano_models import make_nano_model

import snapllm

LONG: dict[str, Any] = {"max_tokens": 30_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def long_path(model_dir: Path) -> Path:
    """A model that takes long over an answer, where it may."""
    return make_nano_model(model_dir / "long.gguf", context_size=32768)


def wait_until_running(engine: snapllm.Engine) -> None:
    deadline = time.monotonic() + 20
    while not any(stats.num_running for stats in engine.stats().models):
        assert time.monotonic() < deadline
        time.sleep(0.002)


async def _all_of(events: Any) -> list[Any]:
    return [event async for event in events]


def _query(model: snapllm.Model, engine: snapllm.Engine) -> Any:
    return engine.contexts.query("doc", "What?", **LONG)


CALLS: dict[str, Callable[[snapllm.Model, snapllm.Engine], Any]] = {
    "generate": lambda model, _: model.generate("a", **LONG),
    "generate, streamed": lambda model, _: list(model.generate("a", stream=True, **LONG)),
    "chat": lambda model, _: model.chat("a", **LONG),
    "chat, streamed": lambda model, _: list(model.chat("a", stream=True, **LONG)),
    "agenerate": lambda model, _: asyncio.run(model.agenerate("a", **LONG)),
    "achat": lambda model, _: asyncio.run(model.achat("a", **LONG)),
    "achat_stream": lambda model, _: asyncio.run(_all_of(model.achat_stream("a", **LONG))),
    "query": _query,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("end", ["close", "unload"])
def test_an_answer_that_is_cut_off_is_an_error(
    long_path: Path, call: Callable[[snapllm.Model, snapllm.Engine], Any], end: str
) -> None:
    engine = snapllm.Engine(num_threads=1)
    model = engine.load(long_path)
    engine.contexts.ingest("A document.", name="doc")
    ends: list[Any] = []

    def ask() -> None:
        try:
            ends.append(call(model, engine))
        except Exception as error:
            ends.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until_running(engine)
    if end == "unload":
        engine.unload(model.id)
    else:
        engine.close()
    thread.join(20)
    assert [type(each) for each in ends] == [snapllm.EngineClosedError]
    engine.close()


def test_a_stream_has_what_came_before_it_was_cut_off(long_path: Path) -> None:
    engine = snapllm.Engine(num_threads=1)
    pieces = engine.load(long_path).generate("a", stream=True, **LONG)
    assert next(pieces).tokens
    engine.close()
    with pytest.raises(snapllm.EngineClosedError, match="before the request was done"):
        for piece in pieces:
            assert piece.finish is None


def test_ctrl_c_ends_the_wait_for_requests_and_then_the_engine(long_path: Path) -> None:
    engine = snapllm.Engine(num_threads=1)
    pieces = engine.load(long_path).generate("a", stream=True, **LONG)
    next(pieces)
    killer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    killer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        engine.close(600)
    assert time.monotonic() - start < 60
    with pytest.raises(snapllm.EngineClosedError):
        list(pieces)
    engine.close(600)  # it is over


def test_ctrl_c_ends_the_wait_for_contexts_and_then_the_engine(long_path: Path) -> None:
    engine = snapllm.Engine(num_threads=1)
    engine.load(long_path)
    with engine.runner.gate.working():
        killer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        killer.start()
        with pytest.raises(KeyboardInterrupt):
            engine.close(600)
        with pytest.raises(snapllm.EngineClosedError):
            engine.runner.gate.check_not_shut()
    assert not engine.models()
