"""The contexts there are: by id, by name, on disk when there is a workspace."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from snapllm.contexts.record import ContextRecord, read_records, remove_record, write_record
from snapllm.errors import ContextNotFoundError, InvalidRequestError


class ContextCatalog:
    """Any thread may use it.

    Args:
        folder: Where the records outlive the process; None keeps them in RAM only.
        check_usable: Called before anything is read or touched; raises once the engine is
            closed, or in a forked child: then the records are another's.
    """

    def __init__(self, folder: Path | None, check_usable: Callable[[], None]) -> None:
        self._folder = folder
        self._check_usable = check_usable
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # files and records change together
        self._records: dict[str, ContextRecord] = {}
        self.num_damaged = 0
        """Files of an earlier run that could not be read."""
        if folder is not None and folder.is_dir():
            records, self.num_damaged = read_records(folder)
            self._records = {record.id: record for record in records}

    @property
    def has_workspace(self) -> bool:
        """Whether contexts outlive the process."""
        return self._folder is not None

    def put(self, record: ContextRecord) -> None:
        """Adds or replaces a record; it is on disk when this returns.

        Raises:
            StorageError: The workspace cannot be written.
        """
        with self._changing():
            self._put(record)

    def replace(self, old: ContextRecord, new: ContextRecord) -> bool:
        """Puts a record in the place of another; False when that is not the current one, or has
        expired meanwhile.

        Raises:
            StorageError: The workspace cannot be written.
        """
        with self._changing():
            if self._records.get(old.id) is not old or old.has_expired(time.time()):
                return False
            self._put(new)
            return True

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        self._check_usable()  # first of all: in a forked child the lock may be held for ever
        with self._writing:
            self._check_usable()
            yield

    def _put(self, record: ContextRecord) -> None:
        if self._folder is not None:
            write_record(self._folder, record)
        with self._lock:
            self._records[record.id] = record

    def remove(self, context_id: str) -> ContextRecord | None:
        """Takes a record out, from the disk first; None when it was not there.

        Raises:
            StorageError: The workspace cannot be written; the record is there as before.
        """
        with self._changing():
            record = self._records.get(context_id)
            if record is not None and self._folder is not None:
                remove_record(self._folder, record)
            with self._lock:
                return self._records.pop(context_id, None)

    def find(self, reference: str, cache_namespace: str = "", model_id: str = "") -> ContextRecord:
        """The context of that id, or else the newest of that name; of one model only where that
        is given.

        Raises:
            ContextNotFoundError: There is none, or it has expired.
            InvalidRequestError: It is no text.
        """
        if not isinstance(reference, str):
            raise InvalidRequestError(
                f"reference: expected text, not {type(reference).__name__}", param="reference"
            )
        records = [
            record for record in self.all(cache_namespace) if model_id in ("", record.model_id)
        ]
        with_id = [record for record in records if record.id == reference]
        with_name = [record for record in records if record.name == reference]
        for record in (*with_id, *reversed(with_name)):
            return record
        raise ContextNotFoundError(f"Context not found: {reference}")

    def records(self) -> list[ContextRecord]:
        """All there are, in no order, also those that have expired and are to be removed."""
        self._check_usable()
        with self._lock:
            return list(self._records.values())

    def all(self, cache_namespace: str | None = "") -> list[ContextRecord]:
        """The contexts that have not expired, oldest first; of all namespaces for None."""
        now = time.time()
        return sorted(
            (
                record
                for record in self.records()
                if not record.has_expired(now) and cache_namespace in (None, record.cache_namespace)
            ),
            key=lambda record: record.created_at,
        )

    def expired(self) -> list[ContextRecord]:
        """The contexts whose time is over and that are still to be removed."""
        now = time.time()
        return [record for record in self.records() if record.has_expired(now)]

    def next_expiry(self) -> float | None:
        """When the next context's time is over, or was, in Unix time; None = none ends."""
        ends = (record.expires_at for record in self.records())
        return min((end for end in ends if end is not None), default=None)
