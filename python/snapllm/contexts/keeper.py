"""The KV of contexts: computed, kept, computed again where it was lost, let go."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

from snapllm import _core
from snapllm._pump import OutputIterator
from snapllm.contexts.cancellation import Cancellation
from snapllm.contexts.catalog import ContextCatalog
from snapllm.contexts.prompt import DocumentPrompt, document_prompt
from snapllm.contexts.record import ContextRecord, DiskFullError
from snapllm.contexts.room import check_fits, explain_not_kept, not_in_ram
from snapllm.contexts.tiers import TierLimits
from snapllm.contexts.views import ContextView, Tier
from snapllm.errors import (
    ContextNotFoundError,
    EngineClosedError,
    SnapLLMError,
    StorageError,
)

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the tokens computed so far and all of them."""

NUM_LOCKS = 64
"""Contexts that change at the same time at most; those that share a lock take turns."""

_RECORD_SLACK_BYTES = 64 << 10
"""Of a record's file: whole blocks of the disk, and the folder's entry."""


class KvKeeper:
    """Keeps the records of a catalog and their KV in step. Any thread may use it."""

    def __init__(self, core: _core.Engine, catalog: ContextCatalog) -> None:
        self._core, self._catalog = core, catalog
        self._limits = TierLimits()
        self._changing = tuple(threading.RLock() for _ in range(NUM_LOCKS))

    def lock_of(self, context_id: str) -> AbstractContextManager[bool]:
        """Held while a context's record or KV changes or is read, other than by its removal; by one
        thread any number of times."""
        return self._changing[hash(context_id) % NUM_LOCKS]

    def note_use(self, record: ContextRecord) -> None:
        """Says that a context is asked about: from now on it is as warm as its KV."""
        self._limits.lift(record.id)

    def pin_all(self) -> None:
        """Keeps the KV that the records of earlier runs have in the workspace."""
        for record in self._catalog.records():
            self._core.pin_prefix(record.prefix())

    def compute(
        self,
        record: ContextRecord,
        prompt: DocumentPrompt,
        progress: Progress | None = None,
        states: Sequence[bytes] = (),
        cancellation: Cancellation | None = None,
    ) -> int:
        """Prefills the document, keeps its KV, and returns how much was there already.

        Nothing of it is left where that fails.

        Args:
            record: The context, which is in the catalog later.
            prompt: Its document's prompt.
            progress: Called as the prefill goes on.
            states: KV of the very tokens that need not be computed; none = all has to be.
            cancellation: Ends it.

        Raises:
            ContextCancelled: It was ended.
            ContextTooLargeError: RAM is too small for its KV.
            StorageError: The workspace cannot be written.
        """
        cancellation = cancellation or Cancellation()
        cancellation.check()
        check_fits(self._core, record, has_workspace=self._catalog.has_workspace)
        # Pinned before there is any of it: what makes room must not take its first pieces
        # while the last ones are written.
        self._core.pin_prefix(record.prefix())
        try:
            if states:
                self._core.write_prefix(record.prefix(), list(states))
            num_cached = self._prefill(record, prompt, progress, cancellation)
            self._core.persist_prefix(record.prefix())
            cancellation.check()
        except StorageError as error:
            self._discard_failed(record)
            raise explain_not_kept(
                self._core, record, error, has_workspace=self._catalog.has_workspace
            ) from None
        except BaseException:
            self._discard_failed(record)
            raise
        return num_cached

    def _prefill(
        self,
        record: ContextRecord,
        prompt: DocumentPrompt,
        progress: Progress | None,
        cancellation: Cancellation,
    ) -> int:
        request = _core.GenerateRequest(
            model_id=record.model_id,
            prompt=record.tokens,
            cache_namespace=record.cache_namespace,
            prefill_only=True,
            report_progress=progress is not None,
        )
        request.chat = prompt.chat
        num_cached = 0
        outputs = OutputIterator(self._core, request)
        with contextlib.closing(outputs), cancellation.stopping(outputs.cancel):
            for output in outputs:
                if output.error is not None:
                    raise output.error
                if output.finish_reason == "cancelled":
                    cancellation.check()
                num_cached = output.num_cached_tokens
                if progress is not None:
                    progress(output.num_computed_prompt_tokens, len(record.tokens))
        return num_cached

    def store(self, record: ContextRecord, replaces: ContextRecord | None = None) -> None:
        """Puts a record whose KV is kept into the catalog, and lets the KV go that it
        replaces; lets its own go where that fails."""
        try:
            try:
                self._put(record, replaces)
            except DiskFullError as full:
                # Others may have filled it: as for KV, what is no context's makes way.
                self._core.make_disk_room(full.num_bytes + _RECORD_SLACK_BYTES)
                self._put(record, replaces)
        except SnapLLMError:
            self._discard_failed(record)
            raise
        if replaces is not None:
            self.discard(replaces, successor=record)

    def _put(self, record: ContextRecord, replaces: ContextRecord | None) -> None:
        if replaces is None:
            self._catalog.put(record)
        elif not self._catalog.replace(replaces, record):
            raise ContextNotFoundError(f"Context not found: {record.id}")

    def remove(self, record: ContextRecord) -> ContextRecord | None:
        """Takes a context out; None when it was not there any more."""
        removed = self._catalog.remove(record.id)
        if removed is not None:
            self._limits.lift(removed.id)
            self.discard(removed)
        return removed

    def discard(self, record: ContextRecord, successor: ContextRecord | None = None) -> None:
        """Lets the KV go that no other context needs, nor what the same one has become."""
        # Once the engine has ended there is nothing to let go: on disk it is nobody's from now on.
        # What was done to the record before is done all the same.
        with contextlib.suppress(EngineClosedError):
            staying = self._limits.staying(record, "warm", self._neighbours(record))
            if successor is not None:
                staying.append(successor.prefix())
            self._core.discard_prefix(record.prefix(), staying)

    def _discard_failed(self, record: ContextRecord) -> None:
        # What made it fail (the engine's end, a full disk) may stand in the way here too; the
        # caller is told of that one.
        with contextlib.suppress(SnapLLMError):
            self.discard(record)

    def move(self, record: ContextRecord, tier: Tier) -> None:
        """Moves the KV to a tier, but for what warmer contexts share with it.

        REQUIRES: its lock is held

        Raises:
            ContextTooLargeError: RAM does not hold what is to be warm.
            ContextNotFoundError: It was removed meanwhile.
        """
        info = self._core.prefix_info(record.prefix())
        # Asked before: on its way through RAM it would drive out what others have there.
        if tier == "warm" and info.disk_bytes > self._core.stats().kv_store.max_ram_bytes:
            raise not_in_ram(self._core, info.disk_bytes)
        with self._limits.moving(record.id, tier):
            staying = self._limits.staying(record, tier, self._neighbours(record))
            self._core.move_prefix(record.prefix(), tier, staying)
            if tier == "warm" and self._is_cold(record):
                # Once more: another one's move may have taken it along that began before.
                self._core.move_prefix(record.prefix(), tier, staying)
            if tier == "warm" and self._is_cold(record):
                if info.tier == "hot":
                    with contextlib.suppress(SnapLLMError):
                        self._core.move_prefix(record.prefix(), "hot", [])
                raise not_in_ram(self._core, info.disk_bytes)
            self._check_kept(record)

    def _is_cold(self, record: ContextRecord) -> bool:
        return self._core.prefix_info(record.prefix()).tier == "cold"

    def make_hot(self, record: ContextRecord) -> None:
        """Moves the KV of a context that was just stored into the KV memory, if there is room."""
        with contextlib.suppress(SnapLLMError):  # it is kept: then it stays warm
            self._core.move_prefix(record.prefix(), "hot", [])
            self._check_kept(record)

    def _check_kept(self, record: ContextRecord) -> None:
        """Takes the KV of a context that was removed while it was moved out of the KV memory, where
        nobody would look for it any more."""
        if any(each.id == record.id for each in self._catalog.records()):
            return
        staying = self._limits.staying(record, "warm", self._neighbours(record))
        with contextlib.suppress(SnapLLMError):
            self._core.move_prefix(record.prefix(), "warm", staying)
        raise ContextNotFoundError(f"Context not found: {record.id}")

    def with_kv(self, record: ContextRecord, *, of_loaded_model: bool = False) -> ContextRecord:
        """The context, computed again where its KV was lost; or where it is another model
        file's than the one that is loaded under the id."""
        is_lost = self._core.prefix_info(record.prefix()).tier is None
        if is_lost or (of_loaded_model and self.is_outdated(record)):
            return self.restore(record)
        return record

    def is_outdated(self, record: ContextRecord) -> bool:
        """Whether the KV is another model file's than the one that is loaded under the id."""
        return any(
            (info.fingerprint, info.kv_kind) != (record.fingerprint, record.kv_kind)
            for info in self._core.models()
            if info.id == record.model_id
        )

    def restore(self, record: ContextRecord) -> ContextRecord:
        """Computes and keeps the KV anew that was lost, or belongs to another file or projector
        under the same id.

        Raises:
            ContextNotFoundError: The context was removed meanwhile.
        """
        with self.lock_of(record.id):
            old = self._catalog.find(record.id, record.cache_namespace)
            info = self._core.model_info(old.model_id)
            prompt = document_prompt(self._core, old.model_id, old.content)
            new = old.computed_by(info, prompt.tokens)
            if new == old:
                with contextlib.suppress(StorageError):
                    self._core.persist_prefix(old.prefix())
                    return old  # another question has
            self.compute(new, prompt)
            self.store(new, replaces=old)
            return new

    def view(self, record: ContextRecord) -> ContextView:
        """The context as it counts; what it only shares with warmer ones is theirs."""
        info = self._core.prefix_info(record.prefix())
        tier = self._limits.apply(record.id, info.tier)
        return ContextView(
            record=record,
            tier=tier,
            hot_bytes=info.hot_bytes if tier == "hot" else 0,
            ram_bytes=info.ram_bytes if tier in ("hot", "warm") else 0,
            disk_bytes=info.disk_bytes,
            is_on_disk=info.is_on_disk and not self.is_outdated(record),
        )

    def _neighbours(self, record: ContextRecord) -> list[ContextRecord]:
        return self._catalog.all(record.cache_namespace)
