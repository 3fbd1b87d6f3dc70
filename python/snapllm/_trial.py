"""Tries out in a process of its own what could end or hang this one."""

from __future__ import annotations

import enum
import logging
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path

from snapllm._child import bare_python_command, python_environment

log = logging.getLogger("snapllm.models")

# Exit statuses of a trial's `main`. Any other is the interpreter's, which could not even try.
REFUSED = 3
FAILED = 4


class Trial(enum.Enum):
    """What came of it."""

    PASSED = enum.auto()
    REFUSED = enum.auto()
    """As it should be, and as the real thing will be."""
    NOT_MADE = enum.auto()


class TrialFailedError(Exception):
    """It ended its process, or took too long; the message says which."""


def try_out(module: str, *arguments: str, name: str, timeout_s: float, data: bytes = b"") -> Trial:
    """Runs the `main` of a module in a bare process, see `bare_python_command`.

    Args:
        module: The module, which ends with one of the statuses above.
        *arguments: What it finds in ``sys.argv[2:]``.
        name: What is tried out, for the log's warning where no process can be started.
        timeout_s: How long it may take.
        data: What it reads from its standard input.

    Raises:
        TrialFailedError: It crashes, or does not end in time.
    """
    # A frozen program would start itself.
    if not sys.executable or getattr(sys, "frozen", False):
        return _not_made(name, "there is no Python interpreter")
    try:
        done = subprocess.run(
            bare_python_command(module, *arguments),
            input=data,
            capture_output=True,
            env=python_environment(),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrialFailedError(f"it does not end within {timeout_s:g} seconds") from None
    except OSError as error:
        return _not_made(name, str(error))
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    why = lines[-1] if lines else _how_it_ended(done.returncode)
    if done.returncode < 0 or done.returncode == FAILED:
        raise TrialFailedError(why)
    if done.returncode == 0:
        return Trial.PASSED
    return Trial.REFUSED if done.returncode == REFUSED else _not_made(name, why)


def is_packaged(path: str) -> bool:
    """Whether a file comes with the package: those are known to be good."""
    return Path(path).parent == Path(str(resources.files("snapllm") / "demo"))


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"it ends with status {status}"
    try:
        return f"it ends the process that tries it out ({signal.Signals(-status).name})"
    except ValueError:
        return f"it ends the process that tries it out (signal {-status})"


def _not_made(name: str, why: str) -> Trial:
    log.warning("%s is loaded without having been tried out: %s", name, why)
    return Trial.NOT_MADE
