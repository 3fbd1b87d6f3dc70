"""OpenAI's Codex, as it comes from npm, with the demo model: its whole prompt, its tools."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from greedy_proxy import GreedyProxy, greedy
from npm_packages import installed
from server_process import Server

TIMEOUT_S = 300
CONFIG = """
model = "demo"
model_provider = "snapllm"
[model_providers.snapllm]
name = "SnapLLM"
base_url = "{url}/v1"
wire_api = "responses"
[analytics]
enabled = false
"""


@pytest.fixture(scope="module")
def codex(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in a folder of its own."""
    folder = installed(Path(__file__).parent / "codex", tmp_path_factory.mktemp("codex"))
    return folder / "node_modules" / ".bin" / "codex"


@pytest.fixture
def proxy(demo_server: Server) -> Iterator[GreedyProxy]:
    """Codex names no temperature."""
    with greedy(demo_server.url) as proxy:
        yield proxy


@pytest.mark.slow
def test_codex_answers_and_runs_a_command(codex: Path, proxy: GreedyProxy, tmp_path: Path) -> None:
    project, home = tmp_path / "project", tmp_path / "home"
    project.mkdir()
    (home / ".codex").mkdir(parents=True)
    (home / ".codex" / "config.toml").write_text(CONFIG.format(url=proxy.url))
    (project / "notes.txt").write_text("The magic word is tulip.\n")

    def ask(prompt: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(codex), "exec", "--skip-git-repo-check", prompt],
            cwd=project,
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    answered = ask("What is the capital of France?")
    assert answered.returncode == 0, answered.stderr
    assert "Paris" in answered.stdout

    done = ask("Run the command: cat notes.txt")
    assert done.returncode == 0, done.stderr
    assert "'cat notes.txt'" in done.stderr and "succeeded" in done.stderr
    outputs = [item for item in proxy.bodies[-1]["input"] if "output" in item]
    assert "The magic word is tulip." in json.dumps(outputs)  # it came back to the model
    assert "tulip" in done.stdout
