"""Files that a command writes: all of one, or what was there before."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file, so that one that was there is whole until the new one is.

    What is for a device or a pipe goes into it; so it does into a file whose folder takes no other.

    Raises:
        OSError: It cannot be written.
    """
    path = path.resolve()  # a link stays one
    has_place = os.access(path.parent, os.W_OK | os.X_OK)
    if path.exists() and not (path.is_file() and has_place):
        path.write_bytes(data)
        return
    mode = _mode_of(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        with contextlib.suppress(OSError):  # some file systems know no such modes
            beside.chmod(mode)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _mode_of(path: Path) -> int:
    """The permissions of the file that is there, or of a new one."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
