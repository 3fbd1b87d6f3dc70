"""Models and engines that the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from nano_image_model import make_nano_image_model
from nano_models import make_nano_model
from server_process import Server

import snapllm


@pytest.fixture(autouse=True)
def no_server_is_left_running() -> Iterator[None]:
    """Kills the servers that a test started and, where it failed, did not stop."""
    before = len(Server.started)
    yield
    for server in Server.started[before:]:
        server.kill()
    del Server.started[before:]


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
def long_model(engine: snapllm.Engine, model_dir: Path) -> snapllm.Model:
    """A model for answers so long that only a cancellation ends them in time."""
    return engine.load(make_nano_model(model_dir / "long.gguf", context_size=32768), "long")


@pytest.fixture(scope="session")
def demo(engine: snapllm.Engine) -> snapllm.Model:
    """The demo model; its answers mean something."""
    return engine.load_demo()
