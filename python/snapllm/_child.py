"""How this process starts Python again: the same package, and nothing from the current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import snapllm

_PROGRAM = """
import sys
sys.path = [path for path in sys.path if path]  # not the current folder, whatever lies there
from {module} import main
main()
"""


def python_command(module: str, *arguments: str) -> list[str]:
    """What runs a module's `main`, which finds the arguments in ``sys.argv[2:]``."""
    return [sys.executable, "-c", _PROGRAM.format(module=module), module, *arguments]


def python_environment() -> dict[str, str]:
    """This process's environment, in which its very package is found."""
    package = str(Path(snapllm.__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}
