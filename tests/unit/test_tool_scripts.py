"""Every script in tools/ starts, whatever folder it is started from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
SCRIPTS = [
    str(path.relative_to(TOOLS))
    for path in sorted(TOOLS.rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]
# What trains needs packages that nothing else here does: they are not loaded to print a help.
STARTER = """
import runpy, sys
from pathlib import Path
from unittest.mock import MagicMock
for name in ("torch", "torch.nn", "torch.nn.functional", "tokenizers"):
    sys.modules[name] = MagicMock()
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_tool_says_how_it_is_used(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTER, TOOLS / script, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
