"""Model files that are written to, or cut short, while the model is in memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from nano_models import make_nano_model

import snapllm
from snapllm import GenerationFailedError, InvalidModelError, Model

PROMPT = [(i * 31 + 7) % 200 + 3 for i in range(90)]


def answer(model: Model) -> list[int]:
    return model.generate(PROMPT, temperature=0, max_tokens=8, ignore_eos=True).tokens


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[snapllm.Engine]:
    with snapllm.Engine(num_threads=2, workspace=tmp_path / "workspace") as engine:
        yield engine


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [make_nano_model(tmp_path / f"{seed}.gguf", seed=seed) for seed in (1, 2)]


def write_over(path: Path, content: bytes) -> None:
    """Writes the content into the very file, later than it was loaded by a file system's clock."""
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    if path.stat().st_mtime_ns == before:
        os.utime(path, ns=(before, before + 1))


def test_a_model_whose_file_was_written_over_answers_as_the_new_one(
    engine: snapllm.Engine, files: list[Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(files[0], tmp_path / "m.gguf"))
    expected = []
    for i, file in enumerate(files):
        expected.append(answer(engine.load(file, f"of {i}")))
    assert expected[0] != expected[1]
    model = engine.load(path, "m", pinned=True)
    assert answer(model) == expected[0]
    for which in (1, 0, 1):
        write_over(path, files[which].read_bytes())
        assert answer(model) == expected[which]
        assert answer(model) == expected[which]
        assert model.info.fingerprint == engine.model(f"of {which}").info.fingerprint
        assert model.info.pinned
    # A load is another way to ask for it.
    write_over(path, files[0].read_bytes())
    assert engine.load(path, "m").info.fingerprint == engine.model("of 0").info.fingerprint
    assert answer(model) == expected[0]


def test_a_model_whose_file_was_cut_short_fails_until_the_file_is_whole_again(
    engine: snapllm.Engine, files: list[Path]
) -> None:
    path, other = files
    model, neighbour = engine.load(path, "m"), engine.load(other, "neighbour")
    expected, of_neighbour = answer(model), answer(neighbour)
    whole = path.read_bytes()
    for size in (len(whole) // 2, 100, 0):
        write_over(path, whole[:size])
        for _ in range(2):
            with pytest.raises(InvalidModelError):
                answer(model)
        with pytest.raises(InvalidModelError):
            model.embed("text")
        with pytest.raises(InvalidModelError):
            engine.load(path, "m")
        assert model.info.state == "evicted"
        assert answer(neighbour) == of_neighbour
        write_over(path, whole)
        assert answer(model) == expected
        assert any(model.embed("text").vectors[0])


def test_an_answer_whose_models_file_is_cut_short_fails_and_nothing_else(
    engine: snapllm.Engine, tmp_path: Path
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", context_size=8192)
    other = make_nano_model(tmp_path / "other.gguf", seed=2)
    model, neighbour = engine.load(path, "m"), engine.load(other, "neighbour")
    whole, expected, of_neighbour = path.read_bytes(), answer(model), answer(neighbour)
    for round_ in range(6):
        stream = model.generate(
            PROMPT, temperature=0, max_tokens=6000, ignore_eos=True, stream=True
        )
        for _ in range(5):
            next(stream)
        write_over(path, whole[: len(whole) * round_ // 6])
        with pytest.raises(GenerationFailedError, match="was written to"):
            for _ in stream:
                pass
        assert answer(neighbour) == of_neighbour
        write_over(path, whole)
        assert answer(model) == expected
    stats = {each.id: each for each in engine.stats().models}
    assert (stats["m"].num_running, stats["m"].num_waiting) == (0, 0)


def test_a_model_whose_file_was_deleted_goes_on(engine: snapllm.Engine, files: list[Path]) -> None:
    model = engine.load(files[0], "m")
    expected = answer(model)
    files[0].unlink()
    assert answer(model) == expected
