"""How an engine ends: closed in the midst of requests, closed with time to spare, or dropped."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
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


@pytest.fixture
def without_gc() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


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


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is Python's own, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
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


@pytest.mark.usefixtures("ctrl_c")
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


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("has_workspace", [True, False])
def test_an_engine_that_is_closed_holds_no_memory_however_long_it_is_held(
    llama_path: Path, tmp_path: Path, has_workspace: bool
) -> None:
    """As behind a block, where the names of it and of its models go on."""
    workspace = tmp_path if has_workspace else None
    with snapllm.Engine(num_threads=1, workspace=workspace) as engine:
        model = engine.load(llama_path, "m", context_size=1024)
        engine.contexts.ingest("A document. " * 20, "m")
        model.chat("Hello " * 20, max_tokens=20)
        assert engine.stats().kv_store.ram_bytes > 0
    stats = engine.stats()
    assert (stats.kv_store.ram_bytes, stats.memory.used_bytes) == (0, 0)
    if has_workspace:
        with snapllm.Engine(num_threads=1, workspace=workspace) as engine:
            engine.load(llama_path, "m", context_size=1024)
            [view] = engine.contexts.list()
            assert engine.contexts.query(view.record.id, "Why?", max_tokens=2).cache_hit


def test_an_engine_that_is_dropped_leaves_its_workspace_at_once(
    llama_path: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        engine = snapllm.Engine(num_threads=1, workspace=tmp_path)
        model = engine.load(llama_path, "m")
        engine.contexts.ingest("A document.", name="doc")
        model.chat("Hello", max_tokens=2)
        asyncio.run(model.achat("Hello", max_tokens=2))
        engine.contexts.query("doc", "What?", max_tokens=2)
        engine.contexts.delete("doc")
        core = weakref.ref(engine.runner.core)
        del engine, model
        assert core() is None


@pytest.mark.usefixtures("without_gc")
def test_a_model_whose_engine_is_dropped_goes_on(llama_path: Path) -> None:
    model = snapllm.Engine(num_threads=1).load(llama_path)
    assert model.generate("a", max_tokens=2, ignore_eos=True).tokens


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("load", [lambda: snapllm.load("/"), lambda: snapllm.load(__file__)])
def test_a_load_that_fails_leaves_no_engine(load: Callable[[], snapllm.SingleModel]) -> None:
    def num_threads() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    before = num_threads()
    for _ in range(5):
        with contextlib.suppress(snapllm.SnapLLMError):
            load()
            pytest.fail("it was loaded")
    assert num_threads() <= before + 1  # the compute thread, which is all engines'
