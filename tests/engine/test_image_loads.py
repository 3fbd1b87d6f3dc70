"""Image models are loaded: from which files, with which options, and what is refused."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nano_image_model import save_safetensors
from nano_models import make_nano_model
from waiting import wait_until

import snapllm
from snapllm.diffusion.image_model import ImageModel
from snapllm.diffusion.registry import ImageModels
from snapllm.diffusion.worker_process import WorkerProcess
from tests.engine.test_diffusion import load, pixels


@pytest.fixture(scope="module")
def painting(image_files: dict[str, Path]) -> Iterator[snapllm.Engine]:
    with snapllm.Engine(num_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def model(painting: snapllm.Engine, image_files: dict[str, Path]) -> ImageModel:
    return load(painting, image_files)


def test_image_models_are_found_switched_and_listed(
    painting: snapllm.Engine, image_files: dict[str, Path], model: ImageModel
) -> None:
    other = load(painting, image_files, "other")
    assert load(painting, image_files, "other") is other
    assert [each.id for each in painting.image_models()] == ["pix", "other"]
    assert painting.image_model() is model
    painting.switch("other")
    assert painting.active_image_model == "other"
    assert painting.image_model() is other
    painting.unload("other")
    assert painting.active_image_model == "pix"


def test_of_image_models_the_one_used_last_becomes_active(
    painting: snapllm.Engine, image_files: dict[str, Path], model: ImageModel
) -> None:
    first, second = load(painting, image_files, "b"), load(painting, image_files, "a")
    pixels(first)
    pixels(second)
    pixels(model)
    painting.switch("b")
    painting.unload("b")
    assert painting.active_image_model == "pix"
    painting.switch("pix")
    pixels(second)
    painting.switch("a")
    painting.unload("a")
    assert painting.active_image_model == "pix"


def test_an_image_model_is_unloaded_while_it_is_loaded(
    image_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a text model is; and another one is loaded beside it."""
    started = WorkerProcess.start
    begun = threading.Event()

    def slow(self: WorkerProcess) -> Any:
        if not begun.is_set():
            begun.set()
            wait_until(lambda: self._is_closed)
        return started(self)

    with snapllm.Engine(num_threads=1) as engine, ThreadPoolExecutor(1) as threads:
        with monkeypatch.context() as patch:
            patch.setattr(WorkerProcess, "start", slow)
            loading = threads.submit(load, engine, image_files, "slow")
            assert begun.wait(20)
            assert pixels(load(engine, image_files, "quick")).size
            charged = engine.stats().memory.external_bytes
            engine.unload("slow")
            with pytest.raises(snapllm.EngineClosedError):
                loading.result(20)
        assert [model.id for model in engine.image_models()] == ["quick"]
        assert 0 < engine.stats().memory.external_bytes < charged
        assert pixels(load(engine, image_files, "slow")).size


def test_a_worker_that_died_has_no_place_once_its_model_is_unpinned(
    image_files: dict[str, Path],
) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        painter = load(engine, image_files, pinned=True)
        assert painter.worker_pid is not None
        os.kill(painter.worker_pid, signal.SIGKILL)
        with pytest.raises(snapllm.GenerationFailedError):
            pixels(painter)
        assert engine.stats().memory.external_bytes > 0
        engine.unpin("pix")
        assert engine.stats().memory.external_bytes == 0
        assert pixels(painter).size and engine.stats().memory.external_bytes > 0


def test_an_id_that_is_being_loaded_is_of_one_kind(
    image_files: dict[str, Path], llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        begun, go_on = threading.Event(), threading.Event()
        load_image = ImageModels.load

        def slow(*arguments: Any) -> ImageModel:
            begun.set()
            assert go_on.wait(20)
            return load_image(*arguments)

        monkeypatch.setattr(ImageModels, "load", slow)
        with ThreadPoolExecutor(1) as threads:
            loading = threads.submit(load, engine, image_files, "one")
            assert begun.wait(20)
            with pytest.raises(snapllm.InvalidRequestError, match="another kind"):
                engine.load(llama_path, "one")
            go_on.set()
            assert loading.result(60).id == "one"
        assert engine.models() == []


def test_a_second_load_gets_what_it_asks_for_or_is_refused(
    painting: snapllm.Engine, image_files: dict[str, Path], tmp_path: Path
) -> None:
    first = load(painting, image_files, "twice", num_threads=1)
    try:
        path = image_files["diffusion_model"]
        assert painting.load_diffusion(path, "twice") is first
        assert load(painting, image_files, "twice", num_threads=1, pinned=True) is first
        assert first.info.pinned
        assert load(painting, image_files, "twice").info.pinned
        asked: list[dict[str, Any]] = [
            {"lora_dir": tmp_path},
            {"flash_attention": True},
            {"num_threads": 2},
            {"max_queued": 1},
            {"isolated": False},
            {"vae": image_files["taesd"]},
            {"taesd": image_files["llm"]},
        ]
        for options in asked:
            with pytest.raises(snapllm.InvalidRequestError, match="with other options") as error:
                painting.load_diffusion(path, "twice", **options)
            assert error.value.param == "model_id"
    finally:
        painting.unload("twice")


@pytest.mark.parametrize(
    "options",
    [
        {"num_threads": "2"},
        {"num_threads": -1},
        {"flash_attention": "on"},  # as text models have it
        {"max_queued": 0},
        {"pinned": "yes"},
        {"keep_alive_s": -2},
        {"isolated": None},
        {"lora_dir": 5},
        {"lora_dir": "no/such/folder"},
        {"vae": 5},
    ],
    ids=repr,
)
def test_options_of_a_load_that_are_wrong_are_named(
    painting: snapllm.Engine, image_files: dict[str, Path], options: dict[str, Any]
) -> None:
    with pytest.raises(snapllm.InvalidRequestError) as error:
        load(painting, image_files, "odd", **options)
    assert error.value.param == next(iter(options))


def test_numbers_of_numpy_and_an_empty_path_are_options_too(
    painting: snapllm.Engine, image_files: dict[str, Path]
) -> None:
    options = {"num_threads": np.int64(1), "flash_attention": np.bool_(False)}
    odd = load(painting, image_files, "odd", lora_dir="", **options)
    try:
        assert odd.info.num_threads == 1
        with pytest.raises(snapllm.InvalidRequestError, match="without a folder"):
            odd.request("x", loras={"ink": 1})
    finally:
        painting.unload("odd")


def test_loras_and_ids_of_another_type_are_named(
    painting: snapllm.Engine, model: ImageModel
) -> None:
    wrong: tuple[Any, ...] = (["ink"], 5, {"ink": "1"}, {"ink": 11}, {5: 1})
    for loras in wrong:
        with pytest.raises(snapllm.InvalidRequestError) as error:
            model.request("x", loras=loras)
        assert error.value.param == "loras"
    ids: tuple[Any, ...] = (5, [], ["pix"])
    for model_id in ids:
        with pytest.raises(snapllm.InvalidRequestError) as error:
            painting.image_model(model_id)
        assert error.value.param == "model_id"


def test_the_same_in_this_process(
    painting: snapllm.Engine, image_files: dict[str, Path], model: ImageModel
) -> None:
    here = load(painting, image_files, "here", isolated=False)
    assert here.worker_pid is None
    assert np.array_equal(pixels(here), pixels(model))
    painting.unload("here")


def test_wrong_files_are_refused(
    painting: snapllm.Engine, image_files: dict[str, Path], model: ImageModel, tmp_path: Path
) -> None:
    language = make_nano_model(tmp_path / "l.gguf")
    with pytest.raises(snapllm.InvalidModelError, match="not an image model") as caught:
        painting.load_diffusion(language)
    assert caught.value.param == "path"
    with pytest.raises(snapllm.InvalidModelError, match="vae or taesd") as caught:
        painting.load_diffusion(image_files["diffusion_model"])
    assert caught.value.param == "path"
    with pytest.raises(snapllm.ModelFileNotFoundError):
        painting.load_diffusion(tmp_path / "none.safetensors")
    with pytest.raises(snapllm.InvalidModelError):
        painting.load(image_files["diffusion_model"])
    # A header without fault, and a model that upstream cannot make of it.
    odd = save_safetensors(
        tmp_path / "odd.safetensors",
        {"double_blocks.0.img_mlp.gate_proj.weight": np.ones((4, 4), np.float16)},
    )
    with pytest.raises(snapllm.InvalidModelError, match="cannot be loaded"):
        painting.load_diffusion(odd, llm=image_files["llm"], taesd=image_files["taesd"])
    truncated = tmp_path / "cut.safetensors"
    truncated.write_bytes(image_files["diffusion_model"].read_bytes()[:-100])
    with pytest.raises(snapllm.InvalidModelError, match="outside of the file"):
        painting.load_diffusion(truncated, taesd=image_files["taesd"])
    assert [each.id for each in painting.image_models()] == ["pix"]


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(
    ("given", "part", "said"),
    [
        ({"llm": "llm", "taesd": "llm"}, "taesd", "llm.safetensors is not the taesd"),
        ({"llm": "llm", "vae": "taesd"}, "vae", "taesd.safetensors is not the vae"),
        ({"llm": "taesd", "taesd": "taesd"}, "llm", "taesd.safetensors is not the llm"),
        ({"taesd": "taesd"}, "llm", "needs its llm"),
        ({"llm": "llm", "taesd": "taesd", "upscaler": "taesd"}, "upscaler", "is not an upscaler"),
    ],
)
def test_the_part_that_is_wrong_or_missing_is_named(
    painting: snapllm.Engine,
    image_files: dict[str, Path],
    given: dict[str, str],
    part: str,
    said: str,
    isolated: bool,
) -> None:
    parts: dict[str, Any] = {name: image_files[file] for name, file in given.items()}
    with pytest.raises(snapllm.InvalidModelError, match=said) as error:
        painting.load_diffusion(image_files["diffusion_model"], "m", isolated=isolated, **parts)
    assert error.value.param == part
    assert str(error.value).count("tensor '") == 1
