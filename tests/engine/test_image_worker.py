"""Image workers: when they end, and what neither they nor their engine wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from nano_image_model import save_safetensors
from waiting import wait_until

import snapllm
from snapllm import _diffusion
from snapllm.diffusion import registry, worker_process
from snapllm.diffusion.image_model import ImageModel
from snapllm.diffusion.job import ImageJob, ImageStep
from snapllm.diffusion.params import Picture
from snapllm.diffusion.worker_process import WorkerProcess

SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_steps": 3}

Load = Callable[..., ImageModel]


@pytest.fixture(scope="module")
def painting() -> Iterator[snapllm.Engine]:
    with snapllm.Engine(num_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def parts(image_files: dict[str, Path]) -> dict[str, str]:
    return {part: str(path) for part, path in image_files.items()}


@pytest.fixture
def load(painting: snapllm.Engine, parts: dict[str, str]) -> Iterator[Load]:
    """Loads an image model as `pix`, up to the end of the test."""

    def load_as_pix(**options: Any) -> ImageModel:
        return painting.load_diffusion(
            parts["diffusion_model"], "pix", llm=parts["llm"], taesd=parts["taesd"], **options
        )

    yield load_as_pix
    if painting.image_models():
        painting.unload("pix")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started from here on."""
    processes = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return processes


def test_a_load_without_room_for_its_worker_ends_that(
    parts: dict[str, str],
    started: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "COMPUTE_BYTES", 0)
    with snapllm.Engine(num_threads=1, memory_budget_bytes=40 << 20) as engine:
        with pytest.raises(snapllm.OutOfMemoryError):
            engine.load_diffusion(
                parts["diffusion_model"], "pix", llm=parts["llm"], taesd=parts["taesd"]
            )
        assert [process.poll() is None for process in started] == [False]


def test_an_interrupted_load_ends_its_worker(
    load: Load, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: WorkerProcess) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkerProcess, "_next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load()
    assert [process.poll() is None for process in started] == [False]
    assert [are_closed(process) for process in started] == [True]


def are_closed(process: subprocess.Popen[bytes]) -> bool:
    """Whether the pipes to and from it are."""
    assert process.stdin is not None and process.stdout is not None
    return process.stdin.closed and process.stdout.closed


def test_the_pipes_of_a_worker_are_closed_when_it_has_ended_or_died(
    load: Load, painting: snapllm.Engine, started: list[subprocess.Popen[bytes]]
) -> None:
    model = load()
    assert model.worker_pid is not None
    os.kill(model.worker_pid, signal.SIGKILL)
    started[0].wait(30)
    assert model.generate_image("x", timeout_s=60, **SMALL).size == (64, 64)
    assert model.evict()
    assert model.generate_image("x", timeout_s=60, **SMALL).size == (64, 64)
    painting.unload("pix")
    assert len(started) == 3
    wait_until(lambda: are_closed(started[0]))  # nobody waited for the end of that one
    assert [are_closed(process) for process in started[1:]] == [True, True]


def test_a_job_whose_future_is_cancelled_ends_as_any_other(load: Load) -> None:
    model = load()
    job = model.submit(model.request("x", **SMALL))
    assert not job.future.cancel()
    assert len(job.result(30).pictures) == 1
    assert model.generate_image("x", timeout_s=30, **SMALL).size == (64, 64)


def test_a_listener_or_callback_that_exits_ends_no_thread_of_the_model(load: Load) -> None:
    model = load()

    def leave(_: object) -> None:
        raise SystemExit(3)

    job = model.submit(model.request("x", **SMALL), leave)
    with pytest.raises(SystemExit):
        job.result(30)
    model.submit(model.request("x", **(SMALL | {"num_steps": 30})))  # the next one waits for it
    job = model.submit(model.request("x", **SMALL))
    job.future.add_done_callback(leave)
    assert len(job.result(30).pictures) == 1
    assert model.generate_image("x", timeout_s=30, **SMALL).size == (64, 64)


def job_that_a_stopped_worker_does_not_read(model: ImageModel) -> ImageJob:
    """Its image is larger than a pipe's buffer."""
    assert model.worker_pid is not None
    os.kill(model.worker_pid, signal.SIGSTOP)
    image = np.zeros((512, 512, 3), np.uint8)
    job = model.submit(model.request("x", init_image=image, width=512, height=512, num_steps=3))
    while model.info.num_running == 0:
        time.sleep(0.01)
    time.sleep(0.1)
    return job


def ends_within(seconds: float, action: Callable[..., None], *args: Any) -> bool:
    thread = threading.Thread(target=action, args=args, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def test_a_worker_that_does_not_read_holds_up_neither_a_cancel_nor_an_unload(
    load: Load, painting: snapllm.Engine
) -> None:
    job = job_that_a_stopped_worker_does_not_read(load())
    assert ends_within(5, job.cancel)
    assert ends_within(5, painting.unload, "pix")
    with pytest.raises(snapllm.SnapLLMError):
        job.result(5)


def test_a_worker_that_does_not_read_is_killed_after_its_silence(
    load: Load, painting: snapllm.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()  # whose worker has all the time it needs to start
    monkeypatch.setattr(worker_process, "PING_S", 0.1)
    monkeypatch.setattr(worker_process, "SILENCE_S", 0.5)
    job = job_that_a_stopped_worker_does_not_read(model)
    with pytest.raises(snapllm.GenerationFailedError, match="does not answer"):
        job.result(20)
    monkeypatch.undo()
    assert model.info.state == "evicted"
    assert painting.stats().memory.external_bytes == 0  # nothing is charged for what is gone
    assert model.generate_image("x", timeout_s=60, **SMALL).size == (64, 64)


def test_a_job_that_is_cancelled_while_its_worker_starts_is_not_begun(load: Load) -> None:
    model, events = load(), []
    assert model.evict()
    job = model.submit(model.request("x", **SMALL), events.append)
    while model.info.num_running == 0:
        time.sleep(0.001)
    job.cancel()
    with pytest.raises(snapllm.JobCancelled):
        job.result(60)
    assert not [event for event in events if isinstance(event, ImageStep)]
    assert model.info.num_starts == 2


def test_a_job_that_stops_when_cancelled_leaves_no_timer_to_kill_the_next(load: Load) -> None:
    model = load()
    job = model.submit(model.request("x", **(SMALL | {"num_steps": 150})))
    while job.last_step.step == 0:
        time.sleep(0.001)
    job.cancel()
    with pytest.raises(snapllm.JobCancelled):
        job.result(60)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
            assert not thread.is_alive()


def test_signals_to_the_whole_group_leave_the_end_to_the_engine(load: Load) -> None:
    model = load()
    job = model.submit(model.request("x", **SMALL))
    assert model.worker_pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(model.worker_pid, number)
    assert len(job.result(60).pictures) == 1
    assert model.info.num_starts == 1


def test_what_upstream_throws_is_a_failure_and_what_a_callback_throws_is_its_own(
    parts: dict[str, str],
) -> None:
    files = _diffusion.ModelFiles()
    for part, path in parts.items():
        setattr(files, part, path)
    model, request = _diffusion.ImageModel(files, 1), _diffusion.ImageRequest()
    request.width = request.height = 64
    request.num_steps = 1

    def fail(*_: object) -> bool:
        raise KeyError("mine")

    request.prompt = f"(cat:0.{'0' * 44}1)"  # which nobody checked here
    with pytest.raises(RuntimeError):
        model.generate(request, fail)
    request.prompt = "a cat"
    with pytest.raises(KeyError, match="mine"):
        model.generate(request, fail)
    with pytest.raises(_diffusion.Cancelled):
        model.generate(request, lambda *_: False)
    assert len(model.generate(request, lambda *_: True)) == 1


def test_an_error_that_nobody_foresaw_costs_a_request_and_no_worker(load: Load) -> None:
    model = load()
    request = model.request("x", **SMALL)
    with pytest.raises(snapllm.GenerationFailedError, match="the image failed"):
        # A picture of fewer samples than its size says, past the checks.
        broken = Picture(64, 64, 3, b"short")
        model.submit(msgspec.structs.replace(request, init_image=broken)).result(60)
    assert len(model.submit(request).result(60).pictures) == 1
    assert model.info.num_starts == 1


@pytest.mark.parametrize("isolated", [True, False])
def test_a_listener_may_unload_its_model(
    load: Load, painting: snapllm.Engine, isolated: bool
) -> None:
    charged = painting.stats().memory.external_bytes
    model, failures = load(isolated=isolated), []

    def unload(event: object) -> None:
        if isinstance(event, ImageStep) and painting.image_models():
            try:
                painting.unload("pix")
            except BaseException as error:
                failures.append(error)

    job = model.submit(model.request("x", **SMALL), unload)
    with pytest.raises(snapllm.EngineClosedError, match="pix was unloaded"):
        job.result(30)
    assert failures == []
    model._thread.join(10)
    assert painting.stats().memory.external_bytes == charged


def test_relative_paths_are_of_the_folder_at_the_load(
    painting: snapllm.Engine, parts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {part: os.path.relpath(path, Path(parts["llm"]).parent) for part, path in parts.items()}
    monkeypatch.chdir(Path(parts["llm"]).parent)
    (tmp_path / "loras").mkdir()
    model = painting.load_diffusion(
        names["diffusion_model"],
        "pix",
        llm=names["llm"],
        taesd=names["taesd"],
        lora_dir=os.path.relpath(tmp_path / "loras"),
    )
    monkeypatch.chdir(tmp_path)
    try:
        assert model.evict()
        assert model.generate_image("x", timeout_s=60, **SMALL).size == (64, 64)
        assert model.info.path == parts["diffusion_model"]
        save_safetensors(
            tmp_path / "loras" / "ink.safetensors", {"x.diff": np.ones((4, 4), np.float16)}
        )
        assert model.request("x", loras={"ink": 1.0}, **SMALL).loras
    finally:
        painting.unload("pix")


def test_a_model_of_this_process_ends_while_another_one_computes(parts: dict[str, str]) -> None:
    """Its end waits for the other's step, whose callback needs the interpreter."""
    script = f"""
import time, snapllm
parts = {parts!r}
main = parts.pop("diffusion_model")
with snapllm.Engine(num_threads=1) as engine:
    one, other = (engine.load_diffusion(main, id, isolated=False, **parts) for id in "ab")
    job = one.submit(one.request("x", width=128, height=128, num_steps=20))
    while job.last_step.step < 1:
        time.sleep(0.01)
    del other
    engine.unload("b")
    assert len(job.result(30).pictures) == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=40)


def test_a_model_that_still_ends_leaves_the_next_of_its_id_its_memory(
    painting: snapllm.Engine, load: Load
) -> None:
    def charged() -> int:
        return painting.stats().memory.external_bytes

    before = charged()
    stepped, may_end = threading.Event(), threading.Event()

    def listen(event: object) -> None:
        if isinstance(event, ImageStep):
            stepped.set()
            may_end.wait(60)

    first = load(isolated=False)
    job = first.submit(first.request("a cat", **SMALL), listen)
    assert stepped.wait(60)
    unloading = threading.Thread(target=painting.unload, args=("pix",))
    unloading.start()
    while painting.image_models():
        time.sleep(0.01)
    load()
    of_both = charged()
    may_end.set()
    unloading.join(60)
    with pytest.raises(snapllm.SnapLLMError):
        job.result(60)
    assert before < charged() < of_both
    painting.unload("pix")
    assert charged() == before


def test_a_worker_runs_nothing_of_the_current_folder(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('not the one that was meant')")
    monkeypatch.chdir(tmp_path)
    assert load().generate_image("a cat", **SMALL).size == (64, 64)
