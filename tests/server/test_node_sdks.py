"""The official clients for Node, run by Node's own test runner."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from server_process import Server

FOLDER = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests beside their installed clients."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        if os.environ.get("SNAPLLM_REQUIRE_NODE"):
            pytest.fail("node and npm are required and not there")
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1"]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        if os.environ.get("SNAPLLM_REQUIRE_NODE"):
            raise
        pytest.skip(f"the clients cannot be installed: {error}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_nodes_client_runs_its_examples(node_folder: Path, demo_server: Server, name: str) -> None:
    result = subprocess.run(
        ["node", "--test", f"{name}.test.mjs"],
        cwd=node_folder,
        env={**os.environ, "SNAPLLM_URL": demo_server.url},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "# pass 6\n" in result.stdout and "# fail 0\n" in result.stdout
