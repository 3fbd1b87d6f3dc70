"""The package in a subinterpreter, and in one that is interrupted while it imports it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_IMPORTING = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
interpreters.run_string(interpreters.create(), '''
try:
    import snapllm
except ImportError as error:
    print(error, flush=True)
''')
import snapllm
print(snapllm.__version__ != "")
"""


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="the module may be gone")
def test_a_subinterpreter_is_refused_and_the_main_one_goes_on() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _IMPORTING], timeout=60, capture_output=True, text=True
    )
    refusal, goes_on = run.stdout.splitlines()
    assert "subinterpreter" in refusal and goes_on == "True", run.stderr


@pytest.mark.parametrize(
    ("arguments", "is_command"),
    [
        (["-m", "snapllm", "models"], True),
        (["-X", "dev", "-m", "snapllm.serve"], True),
        (["{}/snapllm", "models"], True),
        (["{}/program"], False),
        (["-m", "program"], False),
    ],
)
def test_a_command_that_is_interrupted_while_it_starts_ends_as_later_on(
    arguments: list[str], is_command: bool, tmp_path: Path
) -> None:
    (tmp_path / "msgspec.py").write_text("raise KeyboardInterrupt")
    (tmp_path / "snapllm").write_text("from snapllm.cli import main\nmain()")
    (tmp_path / "program").write_text("import snapllm")
    (tmp_path / "program.py").write_text("import snapllm")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *(each.format(tmp_path) for each in arguments)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode == 130, "Traceback" not in done.stderr) == (is_command, is_command)
