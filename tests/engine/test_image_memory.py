"""Image models share the memory budget with language models."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import numpy as np
import pytest
from nano_models import make_nano_model
from waiting import wait_until

import snapllm
from tests.engine.test_diffusion import SMALL, load, pixels


def test_idle_image_models_make_room_for_texts_and_come_back(
    image_files: dict[str, Path], tmp_path: Path
) -> None:
    path, budget = make_nano_model(tmp_path / "m.gguf"), 400 << 20
    options = {"context_size": 512, "kv_cells": 32768}  # tens of MiB with its buffers
    with snapllm.Engine(num_threads=1, memory_budget_bytes=budget, kv_ram_bytes=8 << 20) as engine:

        def leave_free(num_bytes: int) -> None:
            engine.set_external_memory("others", 0)
            engine.set_external_memory(
                "others", budget - engine.stats().memory.used_bytes - num_bytes
            )

        painter = load(engine, image_files)
        first = painter.generate_image("x", seed=1, **SMALL)
        leave_free(0)
        engine.pin("pix")
        with pytest.raises(snapllm.OutOfMemoryError, match="image models"):
            engine.load(path, "m", **options)
        engine.unpin("pix")
        writer = engine.load(path, "m", **options)
        assert painter.info.state == "evicted" and painter.worker_pid is None
        assert writer.generate("x", max_tokens=2, ignore_eos=True).tokens
        leave_free(130 << 20)  # less than the worker is charged for
        again = painter.generate_image("x", seed=1, **SMALL)
        assert again.tobytes() == first.tobytes()
        assert (painter.info.state, writer.info.state) == ("resident", "evicted")
        assert writer.generate("x", max_tokens=2, ignore_eos=True).tokens
        assert painter.info.state == "evicted"


def test_an_image_model_that_comes_back_lets_a_busy_one_finish(
    image_files: dict[str, Path],
) -> None:
    budget = 250 << 20  # of one of them
    with snapllm.Engine(num_threads=1, memory_budget_bytes=budget) as engine:
        first, second = (load(engine, image_files, name) for name in ("first", "second"))
        assert first.info.state == "evicted"
        busy = second.submit(second.request("x", **(SMALL | {"num_steps": 150}), num_images=16))
        leaving, waiting = (first.submit(first.request("x", **SMALL)) for _ in range(2))
        deadline = time.monotonic() + 60
        while leaving.state != "running":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)  # some attempts
        assert leaving.state == "running", "it failed at once"
        leaving.cancel()
        with pytest.raises(snapllm.JobCancelled):
            leaving.result(10)
        busy.cancel()
        assert waiting.result(60).images[0].size == (64, 64)
        assert (first.info.state, second.info.state) == ("resident", "evicted")
        first.pinned = True  # nothing can come of waiting for that one
        begun = time.monotonic()
        with pytest.raises(snapllm.OutOfMemoryError, match="image models"):
            second.generate_image("x", **SMALL)
        assert time.monotonic() - begun < 20


def test_a_text_model_that_comes_back_lets_a_picture_be_finished(
    image_files: dict[str, Path], tmp_path: Path
) -> None:
    path, budget = make_nano_model(tmp_path / "m.gguf"), 400 << 20
    options = {"context_size": 512, "kv_cells": 32768}
    with (
        snapllm.Engine(num_threads=1, memory_budget_bytes=budget, kv_ram_bytes=8 << 20) as engine,
        ThreadPoolExecutor(1) as threads,
    ):
        writer = engine.load(path, "m", **options)
        answer = writer.generate("x", temperature=0, max_tokens=4, ignore_eos=True).tokens
        painter = load(engine, image_files)
        used = engine.stats().memory.used_bytes
        engine.set_external_memory("others", budget - used + (1 << 20))
        assert (painter.info.state, writer.info.state) == ("resident", "evicted")
        busy = painter.submit(painter.request("x", **(SMALL | {"num_steps": 150}), num_images=16))
        wait_until(lambda: busy.state == "running")
        with pytest.raises(snapllm.OutOfMemoryError, match="image models"):
            engine.load(
                make_nano_model(tmp_path / "n.gguf"), "n", **options
            )  # a load does not wait
        engine.pin("pix")  # nothing can come of waiting for it
        with pytest.raises(snapllm.OutOfMemoryError, match="image models"):
            writer.generate("x", max_tokens=1)
        engine.unpin("pix")
        waiting = threads.submit(writer.generate, "x", temperature=0, max_tokens=4, ignore_eos=True)
        with pytest.raises(FutureTimeoutError):
            waiting.result(0.3)
        busy.cancel()
        assert waiting.result(60).tokens == answer
        assert (painter.info.state, writer.info.state) == ("evicted", "resident")


def test_an_image_model_of_this_process_frees_nothing_and_is_not_waited_for(
    image_files: dict[str, Path], tmp_path: Path
) -> None:
    path = make_nano_model(tmp_path / "m.gguf")
    with snapllm.Engine(num_threads=1, memory_budget_bytes=400 << 20) as engine:
        writer = engine.load(path, "m", context_size=512, kv_cells=32768)
        painter = load(engine, image_files, isolated=False)
        memory = engine.stats().memory
        engine.set_external_memory("others", memory.budget_bytes - memory.used_bytes + (1 << 20))
        busy = painter.submit(painter.request("x", **(SMALL | {"num_steps": 150}), num_images=16))
        wait_until(lambda: busy.state == "running")
        with pytest.raises(snapllm.OutOfMemoryError, match="image models"):
            writer.generate("x", max_tokens=1)
        assert busy.state == "running"
        busy.cancel()


def test_what_is_refused_of_an_image_model_for_want_of_memory_is_named(
    image_files: dict[str, Path],
) -> None:
    with snapllm.Engine(num_threads=1, memory_budget_bytes=1 << 20) as engine:
        for _ in range(2):
            with pytest.raises(snapllm.OutOfMemoryError, match=r"^image model pix needs") as caught:
                load(engine, image_files)
            assert str(caught.value).endswith("It does not fit alone: raise the memory budget")


def test_an_image_model_that_nobody_uses_is_evicted_and_comes_back(
    image_files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with snapllm.Engine(num_threads=1, keep_alive_s=0.2) as engine:
        stays = load(engine, image_files, "stays", keep_alive_s=0)
        charged = engine.stats().memory.external_bytes
        painter = load(engine, image_files)

        def is_evicted() -> bool:
            return painter.info.state == "evicted"

        wait_until(is_evicted)
        assert painter.worker_pid is None
        assert engine.stats().memory.external_bytes == charged
        first = pixels(painter)
        wait_until(is_evicted)
        engine.pin("pix")
        assert np.array_equal(pixels(painter), first)
        time.sleep(0.6)
        assert painter.info.state == "resident"
        engine.unpin("pix")
        wait_until(is_evicted)
        assert stays.info.state == "resident"
        load(engine, image_files, "stays", keep_alive_s=-1)  # the engine's: nothing is asked for
        assert stays.keep_alive_s == 0
        load(engine, image_files, "stays", keep_alive_s=0.1)
        wait_until(lambda: stays.info.state == "evicted")
    assert not caplog.records, "no worker has died"
