"""Models that lie in several files."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from split_files import split_file

import snapllm

PROMPT = "The badge color is green. " * 30


@pytest.fixture
def parts(llama_path: Path, tmp_path: Path) -> list[Path]:
    """The first of them holds metadata alone."""
    return split_file(llama_path, tmp_path / "split" / "llama", small_first=True)


def test_a_split_model_answers_as_the_whole_one_and_takes_as_much(
    parts: list[Path], llama_path: Path
) -> None:
    assert len(parts) > 2
    with snapllm.Engine(num_threads=1) as engine:
        split, whole = engine.load(parts[0], "split"), engine.load(llama_path, "whole")
        answers = [
            model.generate(PROMPT, max_tokens=16, temperature=0, num_logprobs=0)
            for model in (split, whole)
        ]
        assert answers[0].logprobs == answers[1].logprobs
        assert engine.load(parts[0]).id == "llama"
        assert split.info.weights_bytes == whole.info.weights_bytes
        assert split.info.file_bytes == sum(part.stat().st_size for part in parts)


def test_all_parts_of_a_split_model_count_in_what_it_needs(
    demo: snapllm.Model, tmp_path: Path
) -> None:
    whole = Path(demo.info.path)
    parts = split_file(whole, tmp_path / "demo")
    assert parts[0].stat().st_size < whole.stat().st_size / 2
    needs = []
    for path in (whole, parts[0]):
        with (
            snapllm.Engine(memory_budget_bytes=1) as engine,
            pytest.raises(snapllm.OutOfMemoryError, match=r"needs ([0-9.]+) MiB") as caught,
        ):
            engine.load(path)
        needs.append(float(re.findall(r"needs ([0-9.]+) MiB", str(caught.value))[0]))
    assert needs[0] == pytest.approx(needs[1], abs=0.5)


def test_a_split_model_named_by_another_part_is_refused_with_the_first_ones_name(
    parts: list[Path], tmp_path: Path
) -> None:
    renamed = shutil.copy(parts[0], tmp_path / "model.gguf")
    with snapllm.Engine(num_threads=1) as engine:
        with pytest.raises(snapllm.InvalidModelError, match=f"part 2 of .*: {parts[0]}$"):
            engine.load(parts[1])
        with pytest.raises(snapllm.InvalidModelError, match="NAME-00001-of-0000"):
            engine.load(renamed)


def test_a_damaged_or_missing_part_is_refused_by_its_name(parts: list[Path]) -> None:
    last = parts[-1]
    whole = last.read_bytes()
    with snapllm.Engine(num_threads=1) as engine:
        last.write_bytes(whole[:-100])
        with pytest.raises(snapllm.InvalidModelError, match=f"{last.name}: the file is truncated"):
            engine.load(parts[0])
        shutil.copy(parts[1], last)
        with pytest.raises(snapllm.InvalidModelError, match=f"{last.name}: it is not the part"):
            engine.load(parts[0])
        last.unlink()
        with pytest.raises(snapllm.ModelFileNotFoundError, match=last.name):
            engine.load(parts[0])
        last.write_bytes(whole)
        engine.load(parts[0])


def test_other_weights_in_a_later_part_make_another_model_of_it(
    parts: list[Path], tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    cached, tokens = [], []
    for weights in ("same", "same", "other"):
        if weights == "other":
            data = bytearray(parts[-1].read_bytes())
            data[-4096:] = os.urandom(1) * 4096
            parts[-1].write_bytes(data)
        with snapllm.Engine(num_threads=1, workspace=workspace) as engine:
            model = engine.load(parts[0], "m")
            answer = model.generate(PROMPT, max_tokens=1, temperature=0)
            cached.append(answer.usage.num_cached_tokens)
            tokens.append(model.info.fingerprint)
    assert cached[0] == 0
    assert cached[1] > 0
    assert cached[2] == 0
    assert tokens[0] == tokens[1] != tokens[2]


def test_two_ids_of_one_split_model_share_its_weights_until_a_part_is_another(
    parts: list[Path],
) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(parts[0], "a")
        before = engine.stats().memory.models_bytes
        engine.load(parts[0], "b")
        weights = engine.model("a").info.weights_bytes
        shared = engine.stats().memory.models_bytes - before
        copy = parts[-1].with_suffix(".new")
        shutil.copy(parts[-1], copy)
        copy.rename(parts[-1])
        engine.load(parts[0], "c")
        assert engine.stats().memory.models_bytes - before - shared == shared + weights
