"""Loads a projector in a process of its own before this one trusts it.

Upstream's loader checks little: a file that lacks a tensor, or has one of another shape,
can end the process that loads it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

from snapllm import _core
from snapllm.errors import GenerationFailedError, InvalidModelError, SnapLLMError

TIMEOUT_S = 300.0
# Exit statuses. Where the loader said no, as it should, the real load says it again. Any
# other status is the interpreter's: it could not even try.
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
    command = [sys.executable, "-m", "snapllm._probe", model_path, mmproj_path]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InvalidModelError(f"Cannot load {mmproj_path}: loading it never ends") from None
    except OSError:
        return  # no process to be had: the real load has its own checks
    if done.returncode < 0 or done.returncode == _FAILED:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"it ends with status {done.returncode}"
        raise InvalidModelError(f"Cannot load {mmproj_path}: trying it out failed: {why}")
    if done.returncode == 0:
        _passed.add(key)


def _main() -> int:
    try:
        _core.probe_projector(*sys.argv[1:])
    except GenerationFailedError as error:
        print(error, file=sys.stderr)
        return _FAILED
    except SnapLLMError:
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main())
