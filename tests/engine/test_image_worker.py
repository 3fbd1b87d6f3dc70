"""Image workers: when they end, and what neither they nor their engine wait for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import snapllm
from snapllm.diffusion import registry
from snapllm.diffusion.image_model import ImageModel
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
