"""Tries a chat template out before this process compiles it.

Upstream lets templates recurse, loop and grow without bound: one that does ends the process, or
never comes to an end.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from pathlib import Path

from snapllm import _core
from snapllm._trial import Trial, TrialFailedError, is_packaged, try_out
from snapllm.errors import InvalidModelError, InvalidRequestError, SnapLLMError

log = logging.getLogger("snapllm.models")

TIMEOUT_S = 10.0
_MAX_KEPT = 4096

_passed: set[str] = set()
"""Of this process: the keys of what its engines tried out."""


def _key(kind: str, content: bytes) -> str:
    # Another version may end at what this one takes.
    return hashlib.sha256(f"{_core.__version__} {kind}\n".encode() + content).hexdigest()


class TemplateTrials:
    """Which templates passed, in this process and, with a workspace, in those before it.

    Any thread may use it.

    Args:
        workspace: The engine's folder; None = nothing is kept for the next process.
    """

    def __init__(self, workspace: Path | None) -> None:
        self._file = None if workspace is None else workspace / "chat_templates.txt"
        self._lock = threading.Lock()
        self._kept: dict[str, None] | None = None  # as in the file, oldest first; None = not read

    def check(self, path: str, given: str) -> None:
        """Tries out what a model's chats are to be rendered with, unless that passed before.

        What the template or the file is refused for anyway is left to the load, which says why.

        Args:
            path: The model's file.
            given: The template that is given in place of the file's; "" = none is.

        Raises:
            InvalidRequestError: The given template crashes, or never ends.
            InvalidModelError: One of the file does.
        """
        if given:
            try:
                self._try(given.encode(), f"The chat template given for {path}")
            except TrialFailedError as failed:
                raise InvalidRequestError(
                    f"chat_template cannot be used: {failed}", param="chat_template"
                ) from None
            return
        try:
            facts = Path(path).stat()
            file = _key("file", f"{path}\n{facts.st_size} {facts.st_mtime_ns}".encode())
            # Where the vocabulary is large, its header takes 50 ms to read.
            if is_packaged(path) or self._has_passed(file):
                return
            texts = _core.chat_templates(path)
        except (OSError, SnapLLMError):
            return
        try:
            trials = [self._try(text, f"The chat template of {path}") for text in texts]
        except TrialFailedError as failed:
            raise InvalidModelError(
                f"Cannot load {path}: its chat template cannot be used: {failed}"
            ) from None
        if all(trials):
            self._keep(file)

    def _try(self, text: bytes, name: str) -> bool:
        """Whether it passed, and not for want of a trial."""
        key = _key("template", text)
        if not self._has_passed(key):
            trial = try_out("snapllm._template_child", name=name, timeout_s=TIMEOUT_S, data=text)
            if trial is not Trial.PASSED:
                return False
        self._keep(key)
        return True

    def _has_passed(self, key: str) -> bool:
        if key in _passed:
            return True
        with self._lock:
            return key in self._read()

    def _read(self) -> dict[str, None]:
        if self._kept is None:
            self._kept = {}
            # Of a pipe or a device the read might never end.
            if self._file is not None and self._file.is_file():
                with contextlib.suppress(OSError, UnicodeDecodeError):
                    self._kept = dict.fromkeys(self._file.read_text("ascii").split())
        return self._kept

    def _keep(self, key: str) -> None:
        _passed.add(key)
        if self._file is None:
            return
        with self._lock:
            kept = self._read()
            if key in kept:
                return
            kept[key] = None
            while len(kept) > _MAX_KEPT:
                del kept[next(iter(kept))]
            beside = self._file.with_name(f"{self._file.name}.tmp")
            try:
                beside.touch(mode=0o600)
                beside.write_text("".join(f"{each}\n" for each in kept), "ascii")
                beside.replace(self._file)
            except OSError as error:  # it is tried out again, then
                with contextlib.suppress(OSError):
                    beside.unlink(missing_ok=True)
                log.warning("%s cannot be written: %s", self._file, error)
