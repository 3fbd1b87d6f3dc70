"""Servers that the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from server_process import Server


@pytest.fixture(scope="session")
def server(llama_path: Path, qwen_path: Path) -> Iterator[Server]:
    """A server with the models `llama` (active) and `qwen`; tests leave it as it is."""
    server = Server("--model", f"llama={llama_path}", "--model", f"qwen={qwen_path}")
    try:
        yield server.start(2)
        assert server.process.poll() is None, "the server died during the tests"
        assert server.stop() == 0
    finally:
        server.process.kill()


@pytest.fixture(scope="session")
def demo_server() -> Iterator[Server]:
    """A server as it starts without any option."""
    server = Server()
    try:
        yield server.start(1)
        assert server.stop() == 0
    finally:
        server.process.kill()


@pytest.fixture(scope="session")
def locked_server() -> Iterator[Server]:
    """A server for the clients that have the key `one` or `two`."""
    server = Server("--api-key", "one", "--api-key", "two")
    try:
        yield server.start(1)
        assert server.stop() == 0
    finally:
        server.process.kill()


@pytest.fixture(scope="module")
def painter(image_files: dict[str, Path], llama_path: Path) -> Iterator[Server]:
    """A server with the image model `pix` and the language model `llama`.

    The alias would take `pix` for `llama`, were a model's own id not to go first.
    """
    server = Server(
        *("--model", f"pix={image_files['diffusion_model']}"),
        *("--part", f"pix.llm={image_files['llm']}", "--part", f"pix.taesd={image_files['taesd']}"),
        *("--model", f"llama={llama_path}", "--no-workspace", "--alias", "p*=llama"),
    )
    try:
        yield server.start(2)
        assert server.process.poll() is None, "the server died during the tests"
        assert server.stop() == 0
    finally:
        server.process.kill()


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="snapllm", max_retries=0)


@pytest.fixture
def demo_client(demo_server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=demo_server.url + "/v1", api_key="snapllm", max_retries=0)
