"""Loads a projector in a process of its own before this one trusts it.

Upstream's loader checks little: a file that lacks a tensor, or has one of another shape,
can end the process that loads it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from snapllm import _core
from snapllm._trial import FAILED, REFUSED, Trial, TrialFailedError, is_packaged, try_out
from snapllm.errors import GenerationFailedError, InvalidModelError, SnapLLMError

TIMEOUT_S = 300.0

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
    key = (mmproj_path, facts.st_size, facts.st_mtime_ns)
    if key in _passed or is_packaged(mmproj_path):
        return
    try:
        trial = try_out(
            "snapllm._probe",
            model_path,
            mmproj_path,
            name=mmproj_path,
            timeout_s=TIMEOUT_S,
        )
    except TrialFailedError as failed:
        raise InvalidModelError(
            f"Cannot load {mmproj_path}: trying it out failed: {failed}"
        ) from None
    if trial is Trial.PASSED:
        _passed.add(key)


def main() -> None:
    """Loads the projector that the command line names and exits with the status of it."""
    try:
        _core.probe_projector(*sys.argv[2:])
    except GenerationFailedError as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
    except SnapLLMError:
        sys.exit(REFUSED)
