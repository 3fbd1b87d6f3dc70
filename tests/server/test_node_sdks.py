"""The official clients for Node, run by Node's own test runner."""

from __future__ import annotations

import base64
import io
import os
import random
import subprocess
from pathlib import Path

import pytest
from demo_eyes.scenes import Scene, Thing, draw
from npm_packages import installed
from server_process import Server

RED = Scene("white", (Thing("circle", "red", 3, 0.26, 0.5, 0.18),))


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests beside their installed clients."""
    return installed(Path(__file__).parent / "node", tmp_path_factory.mktemp("node"))


def red_circle() -> str:
    """A picture of a red circle on the left, as base64."""
    file = io.BytesIO()
    draw(random.Random(1), RED, (64, 64)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_examples"), [("openai", 8), ("anthropic", 8), ("ai", 3)])
def test_nodes_client_runs_its_examples(
    node_folder: Path, demo_server: Server, name: str, num_examples: int
) -> None:
    result = subprocess.run(
        ["node", "--test", "--test-reporter=tap", f"{name}.test.mjs"],
        cwd=node_folder,
        env={**os.environ, "SNAPLLM_URL": demo_server.url, "SNAPLLM_PICTURE": red_circle()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"# pass {num_examples}\n" in result.stdout and "# fail 0\n" in result.stdout
