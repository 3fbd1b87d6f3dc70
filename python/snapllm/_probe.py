"""Loads a projector in a process of its own before this one trusts it.

Upstream's loader checks little: a file that lacks a tensor, or has one of another shape,
can end the process that loads it.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib import resources
from pathlib import Path

from snapllm import _core
from snapllm._child import python_command, python_environment
from snapllm.errors import GenerationFailedError, InvalidModelError, SnapLLMError

log = logging.getLogger("snapllm.models")

TIMEOUT_S = 300.0
# Exit statuses. Where the loader said no, as it should, the real load says it again. Any
# other status is the interpreter's, which could not even try.
_REFUSED = 3
_FAILED = 4

_passed: set[tuple[str, int, int]] = set()


def check_projector(model_path: str, mmproj_path: str) -> None:
    """Tries the projector out, once for each file; one that comes with the package is known.

    What the loader refuses by itself is left to the real load, which says why.

    Raises:
        InvalidModelError: Loading it crashes, or never ends.
    """
    try:
        facts = Path(mmproj_path).stat()
    except (OSError, ValueError):
        return
    if Path(mmproj_path).parent == Path(str(resources.files("snapllm") / "demo")):
        return
    key = (mmproj_path, facts.st_size, facts.st_mtime_ns)
    if key in _passed or not sys.executable:
        return
    try:
        done = subprocess.run(
            python_command("snapllm._probe", model_path, mmproj_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=python_environment(),
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidModelError(f"Cannot load {mmproj_path}: loading it never ends") from None
    except OSError as error:
        _warn(mmproj_path, str(error))  # the real load has its own checks
        return
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    why = lines[-1] if lines else f"it ends with status {done.returncode}"
    if done.returncode < 0 or done.returncode == _FAILED:
        raise InvalidModelError(f"Cannot load {mmproj_path}: trying it out failed: {why}")
    if done.returncode == 0:
        _passed.add(key)
    elif done.returncode != _REFUSED:
        _warn(mmproj_path, why)


def _warn(mmproj_path: str, why: str) -> None:
    log.warning("%s is loaded without having been tried out: %s", mmproj_path, why)


def main() -> None:
    """Loads the projector that the command line names and exits with the status of it."""
    try:
        _core.probe_projector(*sys.argv[2:])
    except GenerationFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(_FAILED)
    except SnapLLMError:
        sys.exit(_REFUSED)
