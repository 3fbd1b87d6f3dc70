"""Claude Code, as it comes from npm, with the demo model: its whole prompt, its tools."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from npm_packages import installed
from server_process import Server

TIMEOUT_S = 400


@pytest.fixture(scope="module")
def claude(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in a folder of its own."""
    source = Path(__file__).parent / "claude_code"
    folder = installed(source, tmp_path_factory.mktemp("claude"))
    return folder / "node_modules" / ".bin" / "claude"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--threads", "2")
    try:
        yield server.start(1)
        assert server.stop() == 0
    finally:
        server.process.kill()


class Session:
    """Runs the program in print mode, with a clean home and nothing but the server's address."""

    def __init__(self, claude: Path, server: Server, folder: Path) -> None:
        self._claude = claude
        self.project = folder / "project"
        self.project.mkdir()
        (folder / "home").mkdir()
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "snapllm",
        }

    def ask(self, prompt: str, *arguments: str) -> dict[str, Any]:
        """The result that the program prints as JSON."""
        command = [str(self._claude), "--model", "demo", "--output-format", "json", *arguments]
        run = subprocess.run(
            [*command, "-p", prompt],
            cwd=self.project,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        result: dict[str, Any] = json.loads(run.stdout)
        assert not result["is_error"], result
        return result


@pytest.mark.slow
def test_claude_code_answers_uses_tools_and_finds_its_prompt_cached(
    claude: Path, server: Server, tmp_path: Path
) -> None:
    session = Session(claude, server, tmp_path)
    (session.project / "notes.txt").write_text("The magic word is tulip.\n")

    first = session.ask("What is the capital of France?")
    assert "Paris" in first["result"]
    assert first["num_turns"] == 1

    second = session.ask("Read the file notes.txt and tell me what it says.")
    assert "The magic word is tulip." in second["result"]
    assert second["num_turns"] == 2
    usage = second["usage"]
    # Two requests: what is new in the first is the question, in the second the file.
    assert usage["cache_read_input_tokens"] > 10 * usage["input_tokens"]

    third = session.ask(
        "Create a file hello.txt with the content good morning", "--allowedTools", "Write"
    )
    assert third["num_turns"] == 2
    assert (session.project / "hello.txt").read_text().strip() == "good morning"
