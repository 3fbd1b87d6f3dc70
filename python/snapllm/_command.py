"""Ctrl-C while a command still starts: it ends without a traceback, as later on.

Most of a command's start is the import of this package, before anything of `snapllm.cli` runs.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType


def _is_command() -> bool:
    """Whether the program is `snapllm` or `python -m snapllm`, and not one that imports this."""
    program = sys.argv[0] if sys.argv else ""
    if program != "-m":  # which it is until the module is found
        return os.path.basename(program) == "snapllm"  # noqa: PTH119
    given = sys.orig_argv
    module = given[given.index("-m") + 1] if "-m" in given else ""
    return module.partition(".")[0] == "snapllm"


def _say_nothing_of_interrupts(
    kind: type[BaseException], value: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.exit(130)
    sys.__excepthook__(kind, value, trace)


if _is_command():
    sys.excepthook = _say_nothing_of_interrupts
