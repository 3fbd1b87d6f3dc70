"""Image models in Python: pictures, queue, cancelling, and what a worker survives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nano_image_model import doubling_upscaler, save_safetensors
from prometheus_client import CollectorRegistry
from waiting import wait_until

import snapllm
from snapllm import _diffusion
from snapllm.diffusion import requests
from snapllm.diffusion.counts import ImageCounts
from snapllm.diffusion.image_model import ImageModel
from snapllm.diffusion.job import ImagePreview, ImageStep, JobEvent
from snapllm.diffusion.params import SAMPLERS, SCHEDULERS
from snapllm.metrics import EngineCollector

SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_steps": 3}
ROUNDS = int(os.environ.get("SNAPLLM_MIXED_ROUNDS", "6"))


def load(
    engine: snapllm.Engine, files: dict[str, Path], model_id: str = "pix", **options: Any
) -> ImageModel:
    return engine.load_diffusion(
        files["diffusion_model"], model_id, llm=files["llm"], taesd=files["taesd"], **options
    )


@pytest.fixture(scope="module")
def painting(image_files: dict[str, Path]) -> Iterator[snapllm.Engine]:
    with snapllm.Engine(num_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def lora_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    rng = np.random.default_rng(3)
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    tensors = {
        f"{stem}.lora_down.weight": rng.standard_normal((4, 128)).astype(np.float16),
        f"{stem}.lora_up.weight": rng.standard_normal((128, 4)).astype(np.float16),
        f"{stem}.alpha": np.array([4.0], np.float32),
    }
    save_safetensors(folder / "ink.safetensors", tensors)
    return folder


@pytest.fixture(scope="module")
def model(painting: snapllm.Engine, image_files: dict[str, Path], lora_dir: Path) -> ImageModel:
    return load(painting, image_files, lora_dir=lora_dir)


def pixels(model: ImageModel, prompt: str = "a cat", **options: Any) -> np.ndarray:
    return np.asarray(model.generate_image(prompt, **(SMALL | {"seed": 1} | options)))


def test_the_names_are_upstreams() -> None:
    assert list(SAMPLERS) == _diffusion.sampler_names()
    assert list(SCHEDULERS) == _diffusion.scheduler_names()


def test_prompt_seed_and_options_decide_the_picture(model: ImageModel) -> None:
    first = pixels(model)
    assert first.shape == (64, 64, 3) and first.std() > 5
    assert np.array_equal(pixels(model), first)
    others = [
        pixels(model, "a dog"),
        pixels(model, seed=2),
        pixels(model, num_steps=4),
        pixels(model, cfg_scale=1.0),
        pixels(model, negative_prompt="blurry"),
        pixels(model, sampler="heun"),
    ]
    assert all(not np.array_equal(first, other) for other in others)
    assert pixels(model, width=128).shape == (64, 128, 3)


def test_a_batch_counts_its_seeds_up(model: ImageModel) -> None:
    result = model.generate_images("a cat", num_images=2, seed=1, **SMALL)
    assert result.seeds == [1, 2]
    assert np.array_equal(np.asarray(result.images[0]), pixels(model))
    assert np.array_equal(np.asarray(result.images[1]), pixels(model, seed=2))


def test_several_images_are_asked_for_by_another_name(model: ImageModel) -> None:
    with pytest.raises(snapllm.InvalidRequestError, match="generate_images several") as error:
        model.generate_image("x", num_images=2)
    assert error.value.param == "num_images"


def test_a_chosen_seed_makes_the_picture_again(model: ImageModel) -> None:
    image = model.generate_image("a cat", **SMALL)
    assert np.array_equal(np.asarray(image), pixels(model, seed=image.info["seed"]))
    assert f"Seed: {image.info['seed']}" in image.info["parameters"]


def test_each_step_is_told(model: ImageModel) -> None:
    steps: list[ImageStep] = []
    model.generate_image("a cat", seed=1, progress=steps.append, **SMALL)
    assert [(step.step, step.num_steps) for step in steps] == [(i, 3) for i in range(4)]
    assert steps[-1].seconds_per_step > 0


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm2"])
def test_steps_and_previews_of_a_batch_are_those_of_their_image(
    model: ImageModel, sampler: str
) -> None:
    told: list[JobEvent] = []
    options = SMALL | {"sampler": sampler, "num_images": 2, "preview_interval": 1}
    model.submit(model.request("a cat", seed=1, **options), told.append).result(60)
    steps = [(event.image_number, event.step) for event in told if isinstance(event, ImageStep)]
    assert list(dict.fromkeys(steps)) == [(image, step) for image in (1, 2) for step in range(4)]
    previews = [event for event in told if isinstance(event, ImagePreview)]
    assert {event.image_number for event in previews} == {1, 2}
    assert all(1 <= event.step <= 3 for event in previews)


def test_steps_of_a_lora_that_is_loaded_are_none_of_the_images(model: ImageModel) -> None:
    steps: list[ImageStep] = []
    for weight in (0.3, 0.7):
        steps.clear()
        model.generate_image("a cat", loras={"ink": weight}, progress=steps.append, **SMALL)
        assert [(step.step, step.num_steps) for step in steps] == [(i, 3) for i in range(4)]


def test_an_image_is_painted_over_where_the_mask_is_white(model: ImageModel) -> None:
    original = np.full((64, 64, 3), 200, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    changed = pixels(model, init_image=original, strength=0.9)
    assert not np.array_equal(changed, original)
    part = pixels(model, init_image=original, mask=mask, strength=0.9)
    assert np.array_equal(part[:, :32], original[:, :32])
    assert not np.array_equal(part[:, 32:], original[:, 32:])


@pytest.mark.parametrize("isolated", [True, False])
def test_an_upscaler_enlarges_the_result(
    painting: snapllm.Engine,
    image_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    isolated: bool,
) -> None:
    file = save_safetensors(tmp_path / "twice.safetensors", doubling_upscaler())
    model = load(painting, image_files, "large", upscaler=file, isolated=isolated)
    try:
        assert model.info.upscale_factor == 2
        plain = pixels(model).astype(int)
        upscaled = pixels(model, upscale=True).astype(int)
        assert upscaled.shape == (128, 128, 3)
        assert np.abs(upscaled - plain.repeat(2, axis=0).repeat(2, axis=1)).max() <= 1
        # Four of them are as much as may come back.
        monkeypatch.setattr(requests, "MAX_RESULT_BYTES", 4 * 128 * 128 * 3)
        assert model.request("x", **SMALL, upscale=True, num_images=4).num_images == 4
        with pytest.raises(snapllm.InvalidRequestError, match="fewer or smaller") as error:
            model.request("x", **SMALL, upscale=True, num_images=5)
        assert error.value.param == "upscale"
    finally:
        painting.unload("large")


def test_a_lora_counts_by_its_weight(model: ImageModel) -> None:
    plain = pixels(model)
    strong = pixels(model, "a cat<lora:ink:1>")
    assert not np.array_equal(strong, plain)
    assert np.array_equal(pixels(model, loras={"ink": 1.0}), strong)
    assert not np.array_equal(pixels(model, loras={"ink": 0.2}), strong)
    parts = pixels(model, "a <lora:ink:0.25>cat<lora:ink:0.25>", loras={"ink": 0.5})
    assert np.array_equal(parts, strong)
    with pytest.raises(snapllm.InvalidRequestError, match="12 together") as error:
        model.request("a cat<lora:ink:6>", loras={"ink": 6})
    assert error.value.param == "loras"
    assert np.array_equal(pixels(model), plain)


@pytest.mark.parametrize("isolated", [True, False])
def test_an_image_whose_lora_goes_while_it_waits_is_not_made_without_it(
    painting: snapllm.Engine,
    image_files: dict[str, Path],
    lora_dir: Path,
    tmp_path: Path,
    isolated: bool,
) -> None:
    for name in ("gone", "cut"):
        shutil.copy(lora_dir / "ink.safetensors", tmp_path / f"{name}.safetensors")
    model = load(painting, image_files, "waits", lora_dir=tmp_path, isolated=isolated)
    try:
        waiting = [model.request("a cat", loras={name: 1}, **SMALL) for name in ("gone", "cut")]
        (tmp_path / "gone.safetensors").unlink()
        os.truncate(tmp_path / "cut.safetensors", 100)
        for request in waiting:
            with pytest.raises(snapllm.GenerationFailedError, match="can be read no more"):
                model.submit(request).result(60)
        assert model.generate_image("a cat", **SMALL).size == (64, 64)
    finally:
        painting.unload("waits")


def test_an_image_says_the_loras_it_was_made_with(model: ImageModel) -> None:
    image = model.generate_image("a <lora:ink:0.5> cat", loras={"ink": 1}, **SMALL)
    assert image.info["parameters"].startswith("a <lora:ink:0.5> cat <lora:ink:1>\nSteps: 3, ")


def test_a_cancelled_image_ends_within_a_step(model: ImageModel) -> None:
    stepped = threading.Event()
    request = model.request("a cat", width=256, height=256, num_steps=150)
    job = model.submit(
        request, lambda e: stepped.set() if isinstance(e, ImageStep) and e.step else None
    )
    waiting = model.submit(model.request("a cat", **SMALL))
    assert model.position(waiting) == 1
    assert stepped.wait(60)
    job.cancel()
    with pytest.raises(snapllm.JobCancelled):
        job.result(60)
    assert job.last_step.step < 100
    assert waiting.result(60).images[0].size == (64, 64)
    assert model.info.num_starts == 1  # the worker was not killed for it


def test_an_image_that_is_cancelled_at_once_ends_before_its_steps(model: ImageModel) -> None:
    for loras in ({}, {"ink": 0.4}):
        job = model.submit(model.request("a cat", **(SMALL | {"num_steps": 150}), loras=loras))
        job.cancel()
        with pytest.raises(snapllm.JobCancelled):
            job.result(60)
    assert model.info.num_starts == 1


def test_a_time_that_is_over_is_pythons_own_error_and_says_so(model: ImageModel) -> None:
    with pytest.raises(TimeoutError, match=r"not done within 0\.01 s") as error:
        model.generate_image("x", seed=1, timeout_s=0.01, **(SMALL | {"num_steps": 150}))
    assert type(error.value) is TimeoutError
    assert pixels(model, timeout_s=np.float32(60)).shape == (64, 64, 3)
    wrong: tuple[Any, ...] = ("1", -1, float("nan"), float("inf"))
    for timeout_s in wrong:
        with pytest.raises(snapllm.InvalidRequestError) as refused:
            model.generate_image("x", timeout_s=timeout_s, **SMALL)
        assert refused.value.param == "timeout_s"
    assert model.info.num_waiting == model.info.num_running == 0


def test_waiting_jobs_can_be_cancelled_and_are_bounded(
    painting: snapllm.Engine, image_files: dict[str, Path]
) -> None:
    model = load(painting, image_files, "small-queue", max_queued=1)
    running = model.submit(model.request("x", width=256, height=256, num_steps=150))
    while model.info.num_running == 0:
        time.sleep(0.01)
    waiting = model.submit(model.request("x", **SMALL))
    with pytest.raises(snapllm.QueueFullError):
        model.submit(model.request("x", **SMALL))
    waiting.cancel()
    with pytest.raises(snapllm.JobCancelled):
        waiting.result(1)
    running.cancel()
    painting.unload("small-queue")


@pytest.mark.parametrize("isolated", [True, False])
def test_unloading_ends_what_it_makes_and_what_waits(
    painting: snapllm.Engine, image_files: dict[str, Path], isolated: bool
) -> None:
    """Not as `JobCancelled`, which is for those who cancel."""
    model = load(painting, image_files, "leaving", isolated=isolated)
    running = model.submit(model.request("x", width=256, height=256, num_steps=150))
    waiting = model.submit(model.request("x", **SMALL))
    while running.last_step.step < 1:
        time.sleep(0.01)
    painting.unload("leaving")
    for job in (running, waiting):
        with pytest.raises(snapllm.EngineClosedError, match="leaving was unloaded"):
            job.result(10)
    with pytest.raises(snapllm.EngineClosedError):
        model.submit(model.request("x", **SMALL))


@pytest.mark.parametrize("isolated", [True, False])
def test_a_listener_that_raises_ends_its_own_job_only(
    painting: snapllm.Engine, image_files: dict[str, Path], isolated: bool
) -> None:
    model = load(painting, image_files, "heard", isolated=isolated)

    def refuse(event: object) -> None:
        raise KeyError(type(event))

    for _ in range(2):
        with pytest.raises(KeyError):
            model.generate_image("x", width=128, height=64, num_steps=2, progress=refuse)
        assert pixels(model).shape == (64, 64, 3)
    running = model.submit(model.request("x", **(SMALL | {"num_steps": 30})))
    jobs = [model.submit(model.request("x", **SMALL), refuse) for _ in range(3)]
    assert len(running.result(60).pictures) == 1
    for job in jobs:  # the last was told of its place in the queue while it waited
        with pytest.raises(KeyError):
            job.result(60)
    assert pixels(model, width=128).shape == (64, 128, 3)
    assert model.info.num_starts == 1
    painting.unload("heard")


def test_an_answer_to_a_job_before_is_no_answer(
    painting: snapllm.Engine, image_files: dict[str, Path]
) -> None:
    model = load(painting, image_files, "late")
    worker: Any = model._worker
    request = model.request("x", width=128, height=64, num_steps=2)

    def refuse(step: object) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        worker.generate(request, refuse, refuse, lambda: False)
    assert pixels(model).shape == (64, 64, 3)
    painting.unload("late")


def test_the_end_of_an_engine_waits_for_its_images(image_files: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        model = load(engine, image_files)
        jobs = [model.submit(model.request("x", **SMALL)) for _ in range(3)]
        closing = threading.Thread(target=engine.close, args=(60,))
        closing.start()
        while True:  # until it lets nothing in any more
            try:
                jobs.append(model.submit(model.request("x", **SMALL)))
            except snapllm.EngineClosedError:
                break
            time.sleep(0.001)
        with pytest.raises(snapllm.EngineClosedError):
            engine.load_demo()
        closing.join(60)
        assert all(len(job.result(0).pictures) == 1 for job in jobs)


def test_images_end_with_the_time_to_close(image_files: dict[str, Path]) -> None:
    engine = snapllm.Engine(num_threads=1)
    model = load(engine, image_files)
    long = model.request("x", width=256, height=256, num_steps=150)
    jobs = [model.submit(long) for _ in range(2)]
    start = time.monotonic()
    engine.close(0.3)
    assert 0.3 <= time.monotonic() - start < 5
    for job in jobs:
        with pytest.raises(snapllm.EngineClosedError):
            job.result(0)


def test_a_killed_worker_costs_one_request(model: ImageModel) -> None:
    expected = pixels(model)
    job = model.submit(model.request("x", width=256, height=256, num_steps=150))
    while job.last_step.step < 1:
        time.sleep(0.01)
    assert model.worker_pid is not None
    os.kill(model.worker_pid, signal.SIGKILL)
    with pytest.raises(snapllm.GenerationFailedError, match="SIGKILL"):
        job.result(30)
    assert np.array_equal(pixels(model), expected)


def test_requests_and_images_are_counted(image_files: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        model = load(engine, image_files)
        model.generate_images("A lighthouse", num_images=2, **SMALL)
        job = model.submit(model.request("A lighthouse", **SMALL | {"num_steps": 150}))
        job.cancel()
        with pytest.raises(snapllm.JobCancelled):
            job.result()
        wait_until(lambda: model.info.counts.num_finished == 2)
        assert model.info.counts == ImageCounts(
            num_requests=2, num_finished=2, num_cancelled=1, num_images=2
        )
        registry = CollectorRegistry()
        registry.register(EngineCollector(engine))
        assert registry.get_sample_value("snapllm_images_total", {"model": "pix"}) == 2
        assert registry.get_sample_value("snapllm_image_requests_running", {"model": "pix"}) == 0


def test_unloading_gives_all_memory_back(
    painting: snapllm.Engine, image_files: dict[str, Path]
) -> None:
    model = load(painting, image_files, "gone")
    charged = painting.stats().memory.external_bytes
    pixels(model)
    pid = model.worker_pid
    assert pid is not None and Path(f"/proc/{pid}").exists()
    painting.unload("gone")
    assert not Path(f"/proc/{pid}").exists()
    assert painting.stats().memory.external_bytes < charged
    with pytest.raises(snapllm.ModelNotFoundError):
        painting.image_model("gone")


def test_an_id_is_of_one_kind(
    painting: snapllm.Engine, model: ImageModel, image_files: dict[str, Path]
) -> None:
    with pytest.raises(snapllm.InvalidRequestError, match="another kind"):
        painting.load_demo("pix")
    painting.load_demo("words")
    with pytest.raises(snapllm.InvalidRequestError, match="another kind"):
        load(painting, image_files, "words")
    for unknown in ("/no/such.gguf", "/no/" + "x" * 300):
        with pytest.raises(snapllm.ModelFileNotFoundError):
            painting.load(unknown, "pix")
        with pytest.raises(snapllm.ModelFileNotFoundError):
            painting.load_diffusion(unknown, "words")
        with pytest.raises(snapllm.ModelFileNotFoundError):
            painting.load_diffusion(unknown, "pix")
    painting.unload("words")


def test_a_file_is_the_same_by_whatever_path(
    painting: snapllm.Engine, model: ImageModel, image_files: dict[str, Path], tmp_path: Path
) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(model.info.path)
    assert load(painting, image_files | {"diffusion_model": link}, "pix") is model


@pytest.mark.parametrize("image_first", [True, False])
def test_words_and_pictures_at_once(image_files: dict[str, Path], image_first: bool) -> None:
    """Two ggmls in one process, one of them in use by each kind, in both orders."""
    with snapllm.Engine(num_threads=1) as engine:
        if image_first:
            painter = load(engine, image_files, isolated=False)
            writer = engine.load_demo()
        else:
            writer = engine.load_demo()
            painter = load(engine, image_files, isolated=False)
        picture = pixels(painter)
        answer = writer.generate("What is", temperature=0, max_tokens=20).tokens
        for _ in range(ROUNDS):
            job = painter.submit(painter.request("a cat", seed=1, **SMALL))
            assert writer.generate("What is", temperature=0, max_tokens=20).tokens == answer
            assert np.array_equal(np.asarray(job.result(60).images[0]), picture)


def test_a_forked_child_is_refused_images(image_files: dict[str, Path]) -> None:
    script = f"""
import os, sys, snapllm
engine = snapllm.Engine(num_threads=1)
model = engine.load_diffusion({str(image_files["diffusion_model"])!r}, "pix",
    llm={str(image_files["llm"])!r}, taesd={str(image_files["taesd"])!r})
pid = os.fork()
if pid == 0:
    try:
        model.generate_image("x", width=64, height=64, num_steps=1, timeout_s=5)
    except snapllm.EngineClosedError:
        os._exit(0)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
