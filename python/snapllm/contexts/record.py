"""What is known of a context, and its file."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import stat
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from snapllm import _core
from snapllm._checks import CONTROL_CHARACTER, convert, plain_number, plain_text
from snapllm.conversation import ContentPart
from snapllm.errors import InvalidRequestError, StorageError

log = logging.getLogger("snapllm.contexts")

ContextName: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]
"""Empty = none is given."""
MAX_TTL_SECONDS = 10 * 366 * 86_400
TtlSeconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_SECONDS)]

_NO_NAMES = {".", "..", "stats", "ingest", "import"}
"""In a context's URL clients take the first two for steps of the path, and the server the others
for its own. Nor does it hold control characters."""


class RecordFields(NamedTuple):
    """What a caller says of a context, besides its document."""

    name: str
    """Empty = none is given."""
    ttl_seconds: int | None
    model_id: str
    cache_namespace: str


def record_fields(
    name: str | None, ttl_seconds: int | None, model_id: str = "", cache_namespace: str = ""
) -> RecordFields:
    """What is given, as Python's own texts and numbers: JSON has no others.

    Raises:
        InvalidRequestError: A record cannot hold it.
    """
    if name is not None:
        name = plain_text(convert(name, ContextName, "name"), "name")
    if name in _NO_NAMES or CONTROL_CHARACTER.search(name or ""):
        raise InvalidRequestError(f"name must not be {name!r}", param="name")
    if ttl_seconds is not None:
        ttl_seconds = convert(plain_number(ttl_seconds), TtlSeconds, "ttl_seconds")
    return RecordFields(
        name=name or "",
        ttl_seconds=ttl_seconds,
        model_id=plain_text(model_id, "model_id"),
        cache_namespace=plain_text(cache_namespace, "cache_namespace"),
    )


class ContextRecord(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A context as the catalog keeps it; its KV is in the core's store."""

    id: str
    name: str
    model_id: str
    content: str | list[ContentPart]
    """The document: text, or texts and pictures (as data URLs)."""
    tokens: list[int]
    """The prompt's beginning that every question to the context shares."""
    fingerprint: str
    """Of the model that the KV belongs to (`ModelInfo.fingerprint`)."""
    kv_kind: str
    created_at: float
    """When it was kept first, in Unix time."""
    ttl_seconds: int | None = None
    """Seconds it lives from when it was kept on; None = until it is deleted."""
    cache_namespace: str = ""
    appended_at: float | None = None
    """When it was kept with what was appended last; None = it is as it was."""

    def __repr__(self) -> str:
        # The document and its tokens would fill the screen.
        facts = f"{self.id} {self.name!r} of {self.model_id!r}, {len(self.tokens)} tokens"
        return f"<snapllm context {facts}>"

    @property
    def expires_at(self) -> float | None:
        """When it expires, in Unix time; None = never."""
        if self.ttl_seconds is None:
            return None
        kept_at = self.created_at if self.appended_at is None else self.appended_at
        return kept_at + self.ttl_seconds

    def has_expired(self, now: float) -> bool:
        """Whether its time is over at `now`, in Unix time."""
        return self.expires_at is not None and self.expires_at <= now

    def computed_by(self, info: _core.ModelInfo, tokens: list[int]) -> ContextRecord:
        """The context with the tokens, and the KV, that a loaded model makes of its document."""
        return msgspec.structs.replace(
            self, tokens=tokens, fingerprint=info.fingerprint, kv_kind=info.kv_kind
        )

    def prefix(self) -> _core.PrefixRef:
        """What the core's store knows it by."""
        return self._prefix

    @functools.cached_property
    def _prefix(self) -> _core.PrefixRef:
        # Made once: a removal shows the core all contexts that begin alike, with all their tokens.
        return _core.PrefixRef(
            model_id=self.model_id,
            fingerprint=self.fingerprint,
            kv_kind=self.kv_kind,
            cache_namespace=self.cache_namespace,
            tokens=self.tokens,
        )


class _File(msgspec.Struct, frozen=True):
    """A record's file: JSON, with the SHA-256 of the record's own JSON."""

    sha256: str
    record: msgspec.Raw


_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_OWNER_ONLY = 0o600
"""As the store has its files: a document is nobody else's on the machine."""
_file_decoder = msgspec.json.Decoder(_File)
_record_decoder = msgspec.json.Decoder(ContextRecord)


class DiskFullError(StorageError):
    """There is no room for a record on the disk."""

    def __init__(self, message: str, num_bytes: int) -> None:
        super().__init__(message)
        self.num_bytes = num_bytes
        """What it takes."""


def write_record(folder: Path, record: ContextRecord) -> None:
    """Writes the record's file whole or not at all; it is there after a crash.

    Raises:
        DiskFullError: There is no room for it.
        StorageError: The folder cannot be written.
    """
    body = msgspec.json.encode(record)
    data = msgspec.json.encode(_File(hashlib.sha256(body).hexdigest(), msgspec.Raw(body)))
    path = folder / f"{record.id}.json"
    scratch = path.with_suffix(".tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(scratch, _FLAGS, _OWNER_ONLY), "wb") as file:
            os.fchmod(file.fileno(), _OWNER_ONLY)  # one that was left by a crash may have another
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        _sync(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        message = f"cannot write {path}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(message, len(data)) from None
        raise StorageError(message) from None


def remove_record(folder: Path, record: ContextRecord) -> None:
    """Removes the record's file, also for after a crash; it may be gone already, and so may the
    folder.

    Raises:
        StorageError: The folder cannot be written.
    """
    path = folder / f"{record.id}.json"
    try:
        path.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            _sync(folder)
    except OSError as error:
        raise StorageError(f"cannot remove {path}: {error.strerror}") from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_records(folder: Path) -> tuple[list[ContextRecord], int]:
    """All records of a folder, and how many files were damaged (they are renamed).

    A file that cannot be read right now is left as it is, for the next start.
    """
    records: list[ContextRecord] = []
    num_damaged = 0
    for scratch in folder.glob("*.tmp"):  # a write that a crash ended
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(_decode(_read(path), path.stem))
        except OSError as error:
            log.warning("the context of %s is not there: cannot read it: %s", path, error.strerror)
        except (ValueError, msgspec.DecodeError) as error:
            num_damaged += 1
            aside = _set_aside(path)
            log.warning("the context of %s is lost, its file is damaged: %s", aside, error)
    return records, num_damaged


def _read(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # of a pipe or a device the read might never end
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.read_bytes()


def _decode(data: bytes, context_id: str) -> ContextRecord:
    """Raises `ValueError` or `msgspec.DecodeError` for what `write_record` did not write."""
    file = _file_decoder.decode(data)
    if hashlib.sha256(file.record).hexdigest() != file.sha256:
        raise ValueError("checksum")
    record = _record_decoder.decode(file.record)
    if record.id != context_id:
        raise ValueError("name")
    return record


def _set_aside(path: Path) -> Path:
    """Renames a damaged file, if that can be; returns the name that it has then."""
    try:
        return path.replace(path.with_suffix(".damaged"))
    except OSError as error:
        log.warning("%s cannot be renamed: %s", path, error.strerror)
        return path
