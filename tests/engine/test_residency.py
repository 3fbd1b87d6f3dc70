"""Loading, switching, unloading; files that are no models."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
import time
from pathlib import Path

import gguf
import pytest
from model_files import ModelFile
from nano_models import make_nano_model
from waiting import wait_until

import snapllm
from snapllm import (
    EngineClosedError,
    InvalidModelError,
    InvalidRequestError,
    ModelFileNotFoundError,
    ModelNotFoundError,
    OutOfMemoryError,
)
from snapllm.engine import demo_model_path, demo_projector_path


def test_models_stay_resident_and_switching_changes_the_default(
    llama_path: Path, qwen_path: Path
) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        assert engine.active_model is None
        engine.load(llama_path, "a")
        engine.load(qwen_path, "b")
        assert [m.id for m in engine.models()] == ["a", "b"]
        assert engine.active_model == engine.model().id == "a"
        engine.switch("b")
        assert engine.model().id == "b"
        assert engine.model("a").generate("x", max_tokens=2, ignore_eos=True).tokens
        engine.unload("b")
        with pytest.raises(ModelNotFoundError, match="b"):
            engine.model("b")
        assert engine.model("a").info.architecture == "llama"


def test_loading_again_returns_the_resident_model(llama_path: Path, qwen_path: Path) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        first = engine.load(llama_path, "a").info.loaded_at_ms
        assert engine.load(llama_path, "a").info.loaded_at_ms == first
        with pytest.raises(InvalidRequestError, match="a"):
            engine.load(qwen_path, "a")


def test_a_second_load_with_options_out_of_range_leaves_the_model_as_it_is(
    llama_path: Path,
) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(llama_path, "a")
        with pytest.raises(InvalidRequestError, match="keep_alive_s"):
            engine.load(llama_path, "a", keep_alive_s=float("inf"))
        time.sleep(0.1)
        assert model.info.state == "resident"
        assert model.generate("x", max_tokens=2, ignore_eos=True).tokens


def test_a_file_replaced_while_it_is_loaded_is_refused_or_its_own_model(tmp_path: Path) -> None:
    """Under the new file's fingerprint the old weights' KV would be kept for the new ones."""
    files = [make_nano_model(tmp_path / f"{seed}.gguf", seed=seed) for seed in (1, 2)]
    path, link = tmp_path / "m.gguf", tmp_path / "link"

    def put(file: Path) -> None:
        link.hardlink_to(file)
        link.replace(path)

    def answer(model: snapllm.Model) -> list[int]:
        return model.generate([5, 9, 13], temperature=0, max_tokens=8, ignore_eos=True).tokens

    with snapllm.Engine(num_threads=1) as engine:
        answers = {}
        for file in files:
            model = engine.load(file, "m", context_size=512)
            answers[model.info.fingerprint] = answer(model)
            load_s = model.info.load_ms / 1000
            engine.unload("m")
        assert len(answers) == 2
        for i in range(12):
            put(files[0])
            change = threading.Timer(load_s * i / 12, put, [files[1]])
            change.start()
            with contextlib.suppress(InvalidModelError):
                model = engine.load(path, "m", context_size=512)
                assert answer(model) == answers[model.info.fingerprint]
                engine.unload("m")
            change.join()


def test_a_load_of_a_model_whose_file_was_replaced_is_refused_until_it_is_unloaded(
    tmp_path: Path,
) -> None:
    path, new = make_nano_model(tmp_path / "m.gguf", seed=1), tmp_path / "new.gguf"
    with snapllm.Engine(num_threads=1) as engine:
        old = engine.load(path, "m").info.fingerprint
        (tmp_path / "link.gguf").hardlink_to(path)
        assert engine.load(tmp_path / "link.gguf", "m").info.fingerprint == old
        make_nano_model(new, seed=2).replace(path)
        for _ in range(2):
            with pytest.raises(snapllm.ModelFileReplacedError, match="unload it first") as caught:
                engine.load(path, "m")
            assert caught.value.param == "model_id"
        assert engine.model("m").info.fingerprint == old
        with pytest.raises(InvalidRequestError, match="is taken by"):
            engine.load(make_nano_model(new, seed=3), "m")
        engine.unload("m")
        assert engine.load(path, "m").info.fingerprint != old
        assert engine.load(path, "m").id == "m"
        path.unlink()
        with contextlib.suppress(snapllm.ModelFileNotFoundError):
            assert engine.load(path, "m").id == "m"


def test_of_two_ids_that_share_weights_each_is_of_the_file_at_its_own_path(tmp_path: Path) -> None:
    path, link = make_nano_model(tmp_path / "m.gguf", seed=1), tmp_path / "link.gguf"
    link.symlink_to(path)
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(path, "m")
        engine.load(link, "linked")
        new = tmp_path / "new"
        new.symlink_to(make_nano_model(tmp_path / "other.gguf", seed=2))
        new.replace(link)
        assert engine.load(path, "m").id == "m"
        with pytest.raises(snapllm.ModelFileReplacedError):
            engine.load(link, "linked")


def test_a_model_that_came_back_is_of_the_file_that_is_there(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf", seed=1)
    with snapllm.Engine(num_threads=1, keep_alive_s=0.1) as engine:
        model = engine.load(path, "m")
        old = model.info.fingerprint
        wait_until(lambda: model.info.state == "evicted")
        make_nano_model(tmp_path / "new.gguf", seed=2).replace(path)
        model.generate("x", max_tokens=1)
        assert engine.load(path, "m").info.fingerprint != old
        wait_until(lambda: model.info.state == "evicted")
        assert engine.load(path, "m").info.state == "resident"
        # Replaced once more after it came back by itself.
        wait_until(lambda: model.info.state == "evicted")
        engine.pin("m")
        model.generate("x", max_tokens=1)
        make_nano_model(tmp_path / "new.gguf", seed=3).replace(path)
        with pytest.raises(snapllm.ModelFileReplacedError, match="unload it first"):
            engine.load(path, "m")


def test_a_model_that_came_back_with_its_projector_may_be_loaded_without_one(
    tmp_path: Path,
) -> None:
    path, projector = tmp_path / "m.gguf", tmp_path / "eyes.gguf"
    shutil.copy(demo_model_path(), path)
    shutil.copy(demo_projector_path(), projector)
    with snapllm.Engine(num_threads=1, keep_alive_s=0.1) as engine:
        model = engine.load(path, "m", mmproj_path=projector)
        wait_until(lambda: model.info.state == "evicted")
        engine.pin("m")
        model.generate("x", max_tokens=1)
        for _ in range(2):
            assert engine.load(path, "m").info.mmproj_path == str(projector)
        shutil.copy(projector, tmp_path / "new.gguf")
        (tmp_path / "new.gguf").replace(projector)
        with pytest.raises(snapllm.ModelFileReplacedError) as caught:
            engine.load(path, "m")
        assert caught.value.param == "model_id"


def test_unknown_models_are_not_found(engine: snapllm.Engine) -> None:
    for action in (engine.switch, engine.unload, engine.model):
        with pytest.raises(ModelNotFoundError, match="nobody"):
            action("nobody")


def test_files_that_are_no_models_are_refused(
    engine: snapllm.Engine, llama_path: Path, tmp_path: Path
) -> None:
    good = llama_path.read_bytes()
    bad = {
        "empty": b"",
        "text": b"hello, this is not a model at all" * 10,
        "magic_only": b"GGUF",
        "header_cut": good[:100],
        "metadata_cut": good[:3000],
        "tensors_cut": good[: len(good) // 2],
        "last_byte_cut": good[:-1],
        "wrong_version": b"GGUF" + (99).to_bytes(4, "little") + good[8:],
        "absurd_counts": b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16 + good[24:],
    }
    for name, data in bad.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        with pytest.raises(InvalidModelError):
            engine.load(path, name)
    assert engine.model("llama").generate("x", max_tokens=2, ignore_eos=True).tokens


def test_random_damage_never_crashes(
    engine: snapllm.Engine, llama_path: Path, tmp_path: Path
) -> None:
    """A flipped byte in the header: refused, or a model that still computes."""
    good = llama_path.read_bytes()
    rng = random.Random(4)
    path = tmp_path / "damaged.gguf"
    for number in range(150):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 3))):
            data[rng.randrange(4, 2000)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            model = engine.load(path, f"damaged-{number}", num_threads=1)
        except snapllm.SnapLLMError:
            continue
        with contextlib.suppress(snapllm.SnapLLMError):
            model.generate("x", max_tokens=2)
        engine.unload(model.id)
    assert engine.model("llama").generate("x", max_tokens=2, ignore_eos=True).tokens


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("qwen3.attention.layer_norm_rms_epsilon", -1.0),
        ("qwen3.attention.layer_norm_rms_epsilon", float("nan")),
        ("qwen3.rope.dimension_count", 0),
        ("qwen3.rope.dimension_count", 15),
        ("qwen3.rope.dimension_count", 64),
    ],
)
def test_metadata_that_no_prompt_can_be_computed_with_is_refused(
    engine: snapllm.Engine, tmp_path: Path, key: str, value: float
) -> None:
    """ggml looks at it in the middle of a computation, where it ended the process."""
    path = make_nano_model(tmp_path / "bad.gguf", "qwen3")
    field = gguf.GGUFReader(path, "r+").get_field(key)
    assert field is not None
    field.parts[field.data[0]][0] = value
    with pytest.raises(InvalidModelError, match=key):
        engine.load(path)


def test_states_that_a_recurrent_model_has_no_memory_for_are_refused(tmp_path: Path) -> None:
    """llama.cpp would fill 12 GB with zeros, whatever the budget."""
    path = make_nano_model(tmp_path / "large.gguf", "qwen35")
    field = gguf.GGUFReader(path, "r+").get_field("qwen35.ssm.inner_size")
    assert field is not None
    field.parts[field.data[0]][0] = 1 << 24
    with (
        snapllm.Engine(num_threads=1, memory_budget_bytes=2 << 30) as engine,
        pytest.raises(OutOfMemoryError, match="needs"),
    ):
        engine.load(path)


def test_norms_of_a_type_that_the_cpu_does_not_multiply_by_are_refused(
    engine: snapllm.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files whose every tensor is of 16-bit floats: the first prompt ended the process."""

    def add_norm(model: ModelFile, name: str, *shape: int, weight: float = 1) -> None:
        model.add_matrix(name, *shape)

    monkeypatch.setattr(ModelFile, "add_norm", add_norm)
    path = make_nano_model(tmp_path / "f16.gguf")
    with pytest.raises(InvalidModelError, match=r"norm\.weight must be of type f32"):
        engine.load(path)


def test_paths_that_cannot_be_read_are_not_found(engine: snapllm.Engine, tmp_path: Path) -> None:
    with pytest.raises(ModelFileNotFoundError, match="missing"):
        engine.load(tmp_path / "missing.gguf")
    with pytest.raises((ModelFileNotFoundError, InvalidModelError)):
        engine.load(tmp_path)
    fifo = tmp_path / "pipe.gguf"
    os.mkfifo(fifo)
    with pytest.raises((ModelFileNotFoundError, InvalidModelError)):
        engine.load(fifo)


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(llama_path: Path) -> None:
    with (
        snapllm.Engine(num_threads=1, memory_budget_bytes=100_000) as engine,
        pytest.raises(OutOfMemoryError, match=r"[KMG]i?B"),
    ):
        engine.load(llama_path)


@pytest.mark.parametrize(
    "options",
    [
        {"context_size": -1},
        {"max_sequences": 65},
        {"kv_type": "q1_7"},
        {"flash_attention": "maybe"},
        {"batch_tokens": -5},
        {"gpu_layers": -2},
    ],
)
def test_wrong_load_options_are_refused(
    engine: snapllm.Engine, llama_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequestError):
        engine.load(llama_path, "x", **options)  # type: ignore[arg-type]


def test_the_context_size_can_be_chosen(llama_path: Path) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        assert engine.load(llama_path, context_size=512).info.context_size == 512


def test_a_closed_engine_says_so(llama_path: Path) -> None:
    engine = snapllm.Engine(num_threads=1)
    model = engine.load(llama_path)
    engine.close()
    for call in (lambda: model.generate("x"), lambda: engine.load(llama_path, "y")):
        with pytest.raises(EngineClosedError):
            call()
    engine.close()


def test_unloading_ends_running_requests_and_counts_them(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf", context_size=32768)
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path)
        stream = model.generate("x", stream=True, max_tokens=30000, ignore_eos=True)
        next(stream)
        engine.unload(model.id)
        with pytest.raises(snapllm.SnapLLMError):
            for _ in stream:
                pass
        _, totals = engine.totals.read()
        counted = totals[model.id]
        assert (counted["num_requests"], counted["num_finished"]) == ((1,), (1,))
        assert counted["num_failed"] == (1,)
        assert counted["num_generated_tokens"][0] > 0


def test_a_model_of_its_own_ends_with_its_engine(llama_path: Path) -> None:
    with snapllm.load(llama_path, context_size=512) as model:
        assert model.generate("x", max_tokens=2).usage.num_generated_tokens > 0
    with pytest.raises(EngineClosedError):
        model.generate("x")
