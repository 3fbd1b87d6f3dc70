"""`snapllm run` in a shell."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any


def _run(arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = f"{shlex.quote(sys.executable)} -m snapllm {arguments}"
    return subprocess.run(command, shell=True, capture_output=True, timeout=60, **options)


def test_an_answer_on_the_terminal_is_a_line_and_what_is_said_about_it_is_not_in_it() -> None:
    done = _run("run - --max-tokens 8", input=b"Hello!")
    assert done.returncode == 0
    assert done.stdout.endswith(b"\n") and len(done.stdout.splitlines()) == 1
    assert done.stderr.startswith(b"[demo: ")


def test_a_prompt_that_is_no_text_is_refused() -> None:
    done = _run("run -", input=b"\xff\xfe")
    assert done.returncode == 1
    assert done.stderr == b"snapllm run: what is piped in is not UTF-8 text\n"


def test_whoever_reads_only_the_beginning_is_no_error() -> None:
    done = _run("run Hello | true; echo ${PIPESTATUS[0]}", executable="/bin/bash")
    assert done.stdout.split()[-1:] == [b"141"]
    assert done.stderr == b""


def test_an_empty_pipe_is_no_prompt() -> None:
    done = _run("run -", input=b"\n")
    assert done.returncode == 2
    assert done.stderr == b"snapllm run: the prompt is empty\n"
