"""Where contexts' files lie on their way in and out of a server."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from snapllm.errors import StorageError


class TransferFolder:
    """Makes folders for such files. Any thread may use it.

    Args:
        folder: The contexts' folder in the workspace, whose disk is the one with room for them;
            None = the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / "transfers"
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # what a crash left

    def make(self) -> TemporaryDirectory[str]:
        """A new folder, which its `cleanup` removes.

        Raises:
            StorageError: The disk cannot be written.
        """
        try:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            return TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True)
        except OSError as error:
            raise StorageError(f"no folder for the file can be made: {error.strerror}") from None


def append_to(path: Path, data: bytes) -> None:
    """Adds what has come of a file.

    Raises:
        StorageError: The disk cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError as error:
        raise StorageError(f"the file cannot be written to disk: {error.strerror}") from None
