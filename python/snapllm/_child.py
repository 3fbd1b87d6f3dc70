"""How this process starts Python again: the same package, and nothing from the current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from snapllm import _core

_FOLDER = Path(__file__).parent

_PROGRAM = """
import sys
sys.path = [path for path in sys.path if path]  # not the current folder, whatever lies there
from {module} import main
main()
"""

# The package without what it imports by itself: asyncio, the engine, half a second.
_BARE_PROGRAM = """
import sys
sys.path = [path for path in sys.path if path]
package = sys.modules["snapllm"] = type(sys)("snapllm")
package.__path__ = {folders!r}
from {module} import main
main()
"""


def python_command(module: str, *arguments: str) -> list[str]:
    """What runs a module's `main`, which finds the arguments in ``sys.argv[2:]``."""
    return [sys.executable, "-c", _PROGRAM.format(module=module), module, *arguments]


def bare_python_command(module: str, *arguments: str) -> list[str]:
    """`python_command` for a module that needs the core and little else: it starts at once."""
    # Where a checkout is installed as it is, the core lies elsewhere.
    folders = [str(_FOLDER), str(Path(_core.__file__).parent)]
    program = _BARE_PROGRAM.format(module=module, folders=folders)
    return [sys.executable, "-S", "-c", program, module, *arguments]


def python_environment() -> dict[str, str]:
    """This process's environment, in which its very package is found."""
    path = os.pathsep.join(filter(None, (str(_FOLDER.parent), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}
