"""Models and engines that the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from nano_image_model import make_nano_image_model
from nano_models import make_nano_model

import snapllm


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for model files."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def llama_path(model_dir: Path) -> Path:
    return make_nano_model(model_dir / "llama.gguf", "llama")


@pytest.fixture(scope="session")
def qwen_path(model_dir: Path) -> Path:
    return make_nano_model(model_dir / "qwen.gguf", "qwen3", seed=2)


@pytest.fixture(scope="session")
def image_files(model_dir: Path) -> dict[str, Path]:
    """The files of a small image model, by part."""
    return make_nano_image_model(model_dir / "image")


@pytest.fixture(scope="session")
def engine(llama_path: Path, qwen_path: Path) -> Iterator[snapllm.Engine]:
    """An engine with the models `llama` (active) and `qwen`; tests leave it as it is."""
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(llama_path)
        engine.load(qwen_path)
        yield engine


@pytest.fixture(scope="session")
def model(engine: snapllm.Engine) -> snapllm.Model:
    return engine.model("llama")


@pytest.fixture(scope="session")
def demo(engine: snapllm.Engine) -> snapllm.Model:
    """The demo model; its answers mean something."""
    return engine.load_demo()
