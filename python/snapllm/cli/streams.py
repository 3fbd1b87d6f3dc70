"""The standard streams, which a shell may have closed (``<&- >&-``)."""

from __future__ import annotations

import os
import sys


def open_streams() -> None:
    """Opens those that are closed onto nothing.

    Otherwise the next file that is opened has the number of one, and is written into by whatever
    writes to that.
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
