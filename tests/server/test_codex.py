"""OpenAI's Codex, as it comes from npm, with the demo model: its whole prompt, its tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from greedy_proxy import GreedyProxy, greedy
from npm_packages import installed
from PIL import Image
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


class Session:
    """Runs the program with a clean home and nothing but the server's address."""

    def __init__(self, codex: Path, proxy: GreedyProxy, folder: Path) -> None:
        self.project, self._home = folder / "project", folder / "home"
        self.project.mkdir()
        self.settings = self._home / ".codex"
        self.settings.mkdir(parents=True)
        (self.settings / "config.toml").write_text(CONFIG.format(url=proxy.url))
        self._codex = codex

    def ask(self, prompt: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What it prints, once it has ended well."""
        done = subprocess.run(
            [str(self._codex), "exec", "--skip-git-repo-check", prompt, *arguments],
            cwd=self.project,
            env={"PATH": os.environ["PATH"], "HOME": str(self._home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return done


@pytest.mark.slow
def test_codex_answers_and_runs_a_command(codex: Path, proxy: GreedyProxy, tmp_path: Path) -> None:
    session = Session(codex, proxy, tmp_path)
    (session.project / "notes.txt").write_text("The magic word is tulip.\n")

    answered = session.ask("What is the capital of France?")
    assert "Paris" in answered.stdout

    done = session.ask("Run the command: cat notes.txt")
    assert "'cat notes.txt'" in done.stderr and "succeeded" in done.stderr
    outputs = [item for item in proxy.bodies[-1]["input"] if "output" in item]
    assert "The magic word is tulip." in json.dumps(outputs)  # it came back to the model
    assert "tulip" in done.stdout


@pytest.mark.slow
def test_codex_leaves_out_images_of_a_model_that_is_said_to_take_text(
    codex: Path, proxy: GreedyProxy, tmp_path: Path
) -> None:
    """With the list of models of the documentation."""
    session = Session(codex, proxy, tmp_path)
    documentation = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
    [documented] = re.findall(r"^```json\n(.*?)^```", documentation, re.DOTALL | re.MULTILINE)
    models = session.settings / "models.json"
    models.write_text(documented.replace("your-model-name", "demo"))
    config = session.settings / "config.toml"
    config.write_text(f'model_catalog_json = "{models}"\n' + config.read_text())
    Image.new("RGB", (64, 64), "red").save(session.project / "red.png")

    answered = session.ask("What is the capital of France?", "--image", "red.png")
    assert "Paris" in answered.stdout
    assert "metadata" not in answered.stderr  # it knows the model
    assert "input_image" not in json.dumps(proxy.bodies[-1]["input"])
