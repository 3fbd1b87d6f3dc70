"""Requests to an image model: what their listeners are told, and what is refused for the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nano_image_model import save_safetensors
from waiting import wait_until

import snapllm
from snapllm.diffusion.image_model import ImageModel
from snapllm.diffusion.job import ImagePreview, ImageQueued, ImageStep
from snapllm.diffusion.params import SCHEDULERS
from tests.engine.test_diffusion import SMALL, load, pixels


@pytest.fixture(scope="module")
def lora_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="module")
def model(image_files: dict[str, Path], lora_dir: Path) -> Iterator[ImageModel]:
    with snapllm.Engine(num_threads=1) as engine:
        yield load(engine, image_files, lora_dir=lora_dir)


def test_the_steps_of_a_batch_say_which_image_they_are_of(model: ImageModel) -> None:
    events: list[Any] = []
    job = model.submit(model.request("a", num_images=2, preview_interval=2, **SMALL), events.append)
    assert (job.last_step.image_number, job.last_step.num_images) == (1, 2)
    job.result(60)
    steps = [(e.image_number, e.num_images, e.step) for e in events if isinstance(e, ImageStep)]
    assert steps == [(number, 2, step) for number in (1, 2) for step in range(4)]
    previews = [e for e in events if isinstance(e, ImagePreview)]
    assert [(e.image_number, e.num_images, e.step) for e in previews] == [(1, 2, 2), (2, 2, 2)]
    assert job.last_step.image_number == 2


def test_jobs_behind_one_that_is_cancelled_learn_that_they_moved_up(model: ImageModel) -> None:
    told: list[list[int]] = [[], [], []]

    def listener(index: int) -> Any:
        return lambda e: told[index].append(e.position) if isinstance(e, ImageQueued) else None

    running = model.submit(model.request("x", width=256, height=256, num_steps=150))
    wait_until(lambda: running.last_step.step >= 1)
    waiting = [model.submit(model.request("x", **SMALL), listener(i)) for i in range(3)]
    assert told == [[], [], []]
    waiting[1].cancel()
    assert told == [[], [], [2]]
    waiting[1].cancel()
    waiting[0].cancel()
    assert told == [[], [], [2, 1]]
    running.cancel()
    assert len(waiting[2].result(60).pictures) == 1
    assert told == [[], [], [2, 1]]


def test_a_lora_of_other_shapes_costs_no_worker(model: ImageModel, lora_dir: Path) -> None:
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    tensors = {
        f"{stem}.lora_down.weight": np.ones((4, 64), np.float16),
        f"{stem}.lora_up.weight": np.ones((128, 4), np.float16),
    }
    save_safetensors(lora_dir / "narrow.safetensors", tensors)
    (lora_dir / "junk.gguf").write_bytes(b"junk")
    starts = model.info.num_starts
    for name in ("narrow", "junk"):
        with pytest.raises(snapllm.InvalidRequestError, match=r"^loras: ") as caught:
            pixels(model, loras={name: 1.0})
        assert caught.value.param == "loras"
        with pytest.raises(snapllm.InvalidRequestError, match=r"^prompt: ") as caught:
            pixels(model, f"a <lora:{name}>")
        assert caught.value.param == "prompt"
    assert pixels(model).shape == (64, 64, 3) and model.info.num_starts == starts


def test_schedules_that_the_model_has_not_are_refused(model: ImageModel) -> None:
    """Upstream crashes there, or paints one flat colour."""
    with pytest.raises(snapllm.InvalidRequestError, match=r"^scheduler: 'ays'") as caught:
        pixels(model, scheduler="ays")
    assert caught.value.param == "scheduler"
    original = np.full((64, 64, 3), 200, np.uint8)
    for scheduler in SCHEDULERS:
        if scheduler == "ays":
            continue
        for num_steps in (1, 2):
            options: dict[str, Any] = {"scheduler": scheduler, "num_steps": num_steps}
            if num_steps == 1 and scheduler in ("gits", "karras", "exponential"):
                with pytest.raises(snapllm.InvalidRequestError) as caught:
                    pixels(model, **options)
                assert caught.value.param == "num_steps"
                continue
            assert pixels(model, **options).std() > 1, options
            changed = pixels(model, init_image=original, strength=0.3, **options)
            assert changed.std() > 1, options
