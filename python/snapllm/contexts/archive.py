"""A context as one file, to be ingested once and shipped. docs/store_format.md has the bytes."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from snapllm.contexts.record import ContextRecord
from snapllm.errors import InvalidRequestError, StorageError

if TYPE_CHECKING:
    from hashlib import _Hash as Digest

    from snapllm._core import ModelInfo

MAGIC = b"SNAPCTX\n"
VERSION = 1
MAX_HEADER_BYTES = 128 << 20
_DIGEST_BYTES = 32
_CHUNK_BYTES = 1 << 20
_SLACK_BYTES = 16 << 20


class Archive:
    """A file that was checked, but for its KV held in memory.

    Args:
        path: The file.
        record: What it is of.
        states_at: Where the first piece of KV begins in the file.
        state_bytes: The pieces' sizes, as the core's store has them.
        digests: Of what comes before them, and of all.
    """

    def __init__(
        self,
        path: Path,
        record: ContextRecord,
        states_at: int,
        state_bytes: list[int],
        digests: tuple[Digest, bytes],
    ) -> None:
        self.record = record
        self._path, self._states_at, self._state_bytes = path, states_at, state_bytes
        self._digests = digests

    def may_be_of(self, info: ModelInfo) -> bool:
        """Whether a model's KV can take as much: only then is it read."""
        num_tokens = len(self.record.tokens)
        if info.kv_kind == "checkpoints":
            most = info.kv_bytes + _SLACK_BYTES
            return all(count <= most for count in self._state_bytes)
        most = 2 * info.kv_bytes * num_tokens // max(1, info.kv_cells) + _SLACK_BYTES
        return sum(self._state_bytes) <= most

    def read_states(self) -> list[bytes]:
        """The KV in pieces.

        Raises:
            InvalidRequestError: The file is not as it was when it was checked.
            StorageError: The file cannot be read.
        """
        before, whole = self._digests
        digest, states = before.copy(), []
        try:
            with self._path.open("rb") as file:
                file.seek(self._states_at)
                for count in self._state_bytes:
                    states.append(file.read(count))
                    digest.update(states[-1])
        except OSError as error:
            raise _unreadable(self._path, error) from None
        if digest.digest() != whole:
            raise _damaged()
        return states


class _Header(msgspec.Struct, frozen=True):
    version: int
    record: ContextRecord
    state_bytes: list[int]


_header_decoder = msgspec.json.Decoder(_Header)


def write_archive(path: Path, record: ContextRecord, states: Sequence[bytes]) -> int:
    """Writes the file whole or not at all; what is for a device or a pipe goes into it.

    Returns:
        Its size in bytes.

    Raises:
        StorageError: It cannot be written.
    """
    header = msgspec.json.encode(_Header(VERSION, record, [len(state) for state in states]))
    head = MAGIC + len(header).to_bytes(8, "little") + header
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                return _write(file, head, states)
        target = path.resolve()  # a link stays one
        scratch = target.with_name(f".{secrets.token_hex(8)}.tmp")  # however long its own
        try:
            with scratch.open("wb") as file:
                num_bytes = _write(file, head, states)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # the latter for links in a circle
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"cannot write {path}: {reason}") from None
    return num_bytes


def _write(file: BinaryIO, head: bytes, states: Sequence[bytes]) -> int:
    digest = hashlib.sha256()
    num_bytes = 0
    for piece in (head, *states):
        digest.update(piece)
        num_bytes += file.write(piece)
    return num_bytes + file.write(digest.digest())


def read_archive(path: Path) -> Archive:
    """Reads a file's header and checks all of it; the KV stays on the disk.

    Raises:
        InvalidRequestError: It is no such file, or is damaged.
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _read(file: BinaryIO, path: Path) -> Archive:
    num_bytes = os.fstat(file.fileno()).st_size
    head = file.read(len(MAGIC) + 8)
    size = int.from_bytes(head[len(MAGIC) :], "little")
    if head[: len(MAGIC)] != MAGIC or not 0 < size <= min(num_bytes, MAX_HEADER_BYTES):
        raise InvalidRequestError("the file is not an exported context")
    text = file.read(size)
    digest = hashlib.sha256(head + text)
    try:
        header = _header_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _damaged() from None
    if header.version != VERSION:
        raise InvalidRequestError(f"exported contexts of version {header.version} are not known")
    rest = num_bytes - len(head) - size - _DIGEST_BYTES
    if min(header.state_bytes, default=0) < 0 or sum(header.state_bytes) != rest:
        raise _damaged()
    before = digest.copy()
    while rest > 0 and (chunk := file.read(min(rest, _CHUNK_BYTES))):
        digest.update(chunk)
        rest -= len(chunk)
    if file.read(_DIGEST_BYTES) != digest.digest():
        raise _damaged()
    states_at = len(head) + size
    digests = (before, digest.digest())
    return Archive(path, header.record, states_at, header.state_bytes, digests)


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot read {path}: {error.strerror or error}")


def _damaged() -> InvalidRequestError:
    return InvalidRequestError("the exported context is damaged")
