"""Headers of weights files: what is wrong in them is found before anybody trusts it."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from nano_image_model import save_safetensors
from nano_models import make_nano_model

from snapllm import InvalidModelError, ModelFileNotFoundError
from snapllm.diffusion.weights_file import is_image_file, read_header
from snapllm.engine import demo_model_path

TENSORS = {
    "double_blocks.0.x.weight": np.ones((4, 8), np.float16),
    "final.bias": np.ones(8, np.float32),
}


@pytest.fixture
def safetensors(tmp_path: Path) -> Path:
    return save_safetensors(tmp_path / "m.safetensors", TENSORS)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a named pipe that nobody writes to would not return."""
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        assert not is_image_file(path)
        with pytest.raises(InvalidModelError, match="not a regular file"):
            read_header(path)


def with_header(path: Path, header: object) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(96))
    return path


def test_image_models_and_language_models_are_told_apart(safetensors: Path, tmp_path: Path) -> None:
    header = read_header(safetensors)
    assert header.is_image_model and not header.is_whole
    assert set(header.shapes) == set(TENSORS)
    whole = save_safetensors(
        tmp_path / "w.safetensors", {"first_stage_model.x": np.ones(4, np.float16)}
    )
    assert read_header(whole).is_whole
    assert is_image_file(safetensors)
    language = make_nano_model(tmp_path / "l.gguf")
    assert read_header(language).architecture == "llama"
    assert not is_image_file(language)
    assert not is_image_file(demo_model_path())
    assert not is_image_file(tmp_path / "none")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F16", "shape": [4, 0], "data_offsets": [0, 0]},
        {"dtype": "F16", "shape": [4, -8], "data_offsets": [0, 64]},
        {"dtype": "F16", "shape": [2**40, 2**40], "data_offsets": [0, 64]},
        {"dtype": "F16", "shape": [1] * 6, "data_offsets": [0, 2]},
        {"dtype": "F12", "shape": [4, 8], "data_offsets": [0, 64]},
        {"dtype": "F16", "shape": [4, 8], "data_offsets": [0, 65]},
        {"dtype": "F16", "shape": [4, 8], "data_offsets": [64, 0]},
        {"dtype": "F16", "shape": [4, 8], "data_offsets": [-64, 0]},
        {"dtype": "F16", "shape": [4, 8], "data_offsets": [64, 128]},
        {"dtype": "F16", "shape": "4", "data_offsets": [0, 64]},
        {"dtype": "F16", "shape": [4, 8]},
        7,
    ],
)
def test_bad_tensors_are_refused(tmp_path: Path, entry: object) -> None:
    path = with_header(tmp_path / "bad.safetensors", {"x": entry})
    with pytest.raises(InvalidModelError, match=r"bad\.safetensors"):
        read_header(path)


def test_overlaps_and_empty_files_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F16", "shape": [4, 8], "data_offsets": [0, 64]}
    with pytest.raises(InvalidModelError, match="overlap"):
        read_header(with_header(tmp_path / "a", {"x": entry, "y": entry}))
    with pytest.raises(InvalidModelError, match="no tensors"):
        read_header(with_header(tmp_path / "b", {"__metadata__": {}}))
    (tmp_path / "c").touch()
    with pytest.raises(InvalidModelError):
        read_header(tmp_path / "c")
    with pytest.raises(ModelFileNotFoundError):
        read_header(tmp_path / "d")


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_damaged_headers_never_raise_anything_else(
    tmp_path: Path, safetensors: Path, kind: str
) -> None:
    whole = (
        safetensors if kind == "safetensors" else make_nano_model(tmp_path / "m.gguf")
    ).read_bytes()
    rng = random.Random(1)
    path = tmp_path / "damaged"
    num_refused = 0
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(min(len(data), 3000))
            if rng.random() < 0.3:
                del data[start:]
                break
            data[start : start + rng.randint(1, 8)] = rng.randbytes(rng.randint(1, 8))
        path.write_bytes(data)
        try:
            read_header(path)
        except InvalidModelError:
            num_refused += 1
    assert num_refused > 100
