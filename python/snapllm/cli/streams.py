"""The standard streams, which a shell may have closed (``<&- >&-``) or may not take all text."""

from __future__ import annotations

import io
import os
import sys


def open_streams() -> None:
    """Opens those that are closed onto nothing, and has what cannot be encoded written escaped.

    Otherwise the next file that is opened has the number of one, and is written into by whatever
    writes to that; and a command ends at the first name that a terminal's encoding has not.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is
