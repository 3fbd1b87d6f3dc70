"""Makes, finds, moves and removes contexts."""

from __future__ import annotations

import contextlib
import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from typing_extensions import Unpack

from snapllm._checks import check_text, file_path
from snapllm._readers import fold_chat
from snapllm._runner import Runner
from snapllm.contexts.archive import read_archive, write_archive
from snapllm.contexts.cancellation import Cancellation
from snapllm.contexts.catalog import ContextCatalog
from snapllm.contexts.expiry import ExpiryTimer
from snapllm.contexts.keeper import KvKeeper, Progress
from snapllm.contexts.prompt import DocumentPrompt, appended, document_prompt, make_document
from snapllm.contexts.questions import Questions
from snapllm.contexts.record import ContextRecord, RecordFields, record_fields
from snapllm.contexts.transfer import TransferFolder
from snapllm.contexts.views import ContextStats, ContextView, QueryResult, Tier
from snapllm.conversation import ContentPart
from snapllm.errors import (
    ContextNotFoundError,
    ContextTooLargeError,
    EngineClosedError,
    InvalidRequestError,
    ModelNotFoundError,
    NoWorkspaceError,
    StorageError,
)
from snapllm.params import ChatOptions

_T = TypeVar("_T")

DEFAULT_TTL_SECONDS = 86_400
MAX_RETURNS = 3
"""How often a model is brought back for a context that is to be hot, where others evict it."""


def _check_tier(tier: str) -> Tier:
    if tier not in ("hot", "warm", "cold"):
        raise InvalidRequestError("tier must be hot, warm or cold", param="tier")
    return cast(Tier, tier)


class ContextManager:
    """The contexts of an engine. Any thread may use it; calls wait for the model.

    Args:
        runner: The engine's runner.
        folder: Where contexts outlive the process; None keeps them in RAM only.
    """

    def __init__(self, runner: Runner, folder: Path | None) -> None:
        self._runner = runner
        self._core = runner.core
        self._gate = runner.gate
        self._catalog = ContextCatalog(folder, self._gate.check_not_shut)
        self._keeper = KvKeeper(self._core, self._catalog)
        self.questions = Questions(runner, self._keeper, self._catalog)
        """Makes chats of questions; for the server."""
        self.transfers = TransferFolder(folder)
        """For the files that a server takes in and gives out."""
        self._keeper.pin_all()
        self._timer = ExpiryTimer(self._expire)
        self._timer.set(self._catalog.next_expiry())
        # One that is dropped leaves no thread behind that sleeps for it.
        weakref.finalize(self, self._timer.stop).atexit = False
        # It does not know the runner in its turn: an engine that is dropped ends at once.
        runner.resolve = self.questions.resolve

    @property
    def num_damaged(self) -> int:
        """Contexts of earlier runs that are lost, since their files are damaged."""
        return self._catalog.num_damaged

    def stop_expiry(self) -> None:
        """Has no context removed by itself any more; for the engine's end."""
        self._timer.stop()

    def _find(self, reference: str, cache_namespace: str) -> ContextRecord:
        return self._catalog.find(reference, cache_namespace)

    def ingest(
        self,
        content: str | Sequence[Any],
        model_id: str = "",
        *,
        images: Any = (),
        name: str | None = None,
        ttl_seconds: int | None = DEFAULT_TTL_SECONDS,
        cache_namespace: str = "",
        progress: Progress | None = None,
        cancellation: Cancellation | None = None,
    ) -> ContextView:
        """Computes a document's KV and keeps it; with a workspace it is on disk then.

        Args:
            content: The document: a text, or content parts in OpenAI's form, whose pictures
                are data URLs.
            model_id: The model to compute it with; empty = the active one.
            images: Pictures to show before the text: paths, bytes, Pillow images or arrays, or
                one of these.
            name: To find it by, besides its id; made from the id by default.
            ttl_seconds: Seconds until it expires, from when it is kept; None = never.
            cache_namespace: Only questions of the same namespace find it.
            progress: Called as the prefill goes on.
            cancellation: Ends it before the context is kept.

        Raises:
            ContextCancelled: It was ended; nothing is left of it.
            InvalidRequestError: The content is empty, an argument out of range, or the model
                does not take the pictures.
            ModelNotFoundError: No such model is loaded.
            ContextLengthExceededError: The document does not fit the model's context.
            StorageError: The workspace cannot be written.
        """
        document = make_document(content, images)
        fields = record_fields(name, ttl_seconds, model_id, cache_namespace)
        with self._gate.working():
            record, prompt = self._new(document, fields)
            return self._add(record, prompt, progress, cancellation=cancellation)

    def _new(
        self, document: str | list[ContentPart], fields: RecordFields
    ) -> tuple[ContextRecord, DocumentPrompt]:
        context_id = f"ctx_{secrets.token_hex(6)}"
        info = self._core.model_info(fields.model_id)
        prompt = document_prompt(self._core, info.id, document)
        record = ContextRecord(
            id=context_id,
            name=fields.name or context_id,
            model_id=info.id,
            content=document,
            tokens=prompt.tokens,
            fingerprint=info.fingerprint,
            kv_kind=info.kv_kind,
            created_at=time.time(),  # until it is kept
            ttl_seconds=fields.ttl_seconds,
            cache_namespace=fields.cache_namespace,
        )
        return record, prompt

    def append(
        self,
        reference: str,
        content: str,
        *,
        cache_namespace: str = "",
        cancellation: Cancellation | None = None,
    ) -> ContextView:
        """Adds text to the end of a context's document, on a line of its own; computes only what
        is new, but for models without full attention all of it: their state of the document holds
        the end of its turn. Its time to live begins again. `cancellation` leaves the context as it
        was."""
        if not isinstance(content, str) or not content:
            raise InvalidRequestError("content must be text, and not empty", param="content")
        check_text(content, "content")
        context_id = self._find(reference, cache_namespace).id
        with self._gate.working(), self._keeper.lock_of(context_id):
            old = self._find(context_id, cache_namespace)
            info = self._core.model_info(old.model_id)
            document = appended(old.content, content)
            prompt = document_prompt(self._core, old.model_id, document)
            record = msgspec.structs.replace(old, content=document)
            record = record.computed_by(info, prompt.tokens)
            return self._add(record, prompt, replaces=old, cancellation=cancellation)

    def fork(
        self,
        reference: str,
        *,
        name: str | None = None,
        ttl_seconds: int | None = DEFAULT_TTL_SECONDS,
        cache_namespace: str = "",
        cancellation: Cancellation | None = None,
    ) -> ContextView:
        """A second context of the same document, which lives and grows on its own."""
        fields = record_fields(name, ttl_seconds)
        context_id = f"ctx_{secrets.token_hex(6)}"
        with self._gate.working():
            old = self._find(reference, cache_namespace)
            info = self._core.model_info(old.model_id)
            prompt = document_prompt(self._core, old.model_id, old.content)
            record = msgspec.structs.replace(
                old.computed_by(info, prompt.tokens),
                id=context_id,
                name=fields.name or context_id,
                ttl_seconds=fields.ttl_seconds,
            )
            return self._add(record, prompt, cancellation=cancellation)

    def export_file(
        self, reference: str, path: str | PathLike[str], *, cache_namespace: str = ""
    ) -> int:
        """Writes a context with its KV as one file, for `import_file` here or elsewhere.

        Returns:
            The file's size in bytes.

        Raises:
            ContextNotFoundError: There is no such context.
            StorageError: The file cannot be written.
        """
        file = file_path(path)
        context_id = self._find(reference, cache_namespace).id
        with self._gate.working(), self._keeper.lock_of(context_id):
            record = self._find(context_id, cache_namespace)
            with self._not_removed(record):
                record, states = self._with_kv(
                    record, lambda kept: self._core.read_prefix(kept.prefix())
                )
            # With a server it is made of a key, which is no business of whoever gets the file.
            exported = msgspec.structs.replace(record, cache_namespace="")
            return write_archive(Path(file), exported, states)

    def import_file(
        self,
        path: str | PathLike[str],
        *,
        model_id: str = "",
        name: str | None = None,
        ttl_seconds: int | None = DEFAULT_TTL_SECONDS,
        cache_namespace: str = "",
        cancellation: Cancellation | None = None,
    ) -> ContextView:
        """Makes a context of a file that `export_file` wrote.

        Its KV is taken from the file where that is of the very model file and settings;
        then `ContextView.num_cached_tokens` is all of it. Otherwise the document is
        computed anew. Import only what you trust: the KV goes to the model as it is.

        Args:
            path: The file.
            model_id: The model to use it with; empty = the one of the same id as before.
            name: To find it by; as before by default.
            ttl_seconds: Seconds until it expires, from now on; None = never.
            cache_namespace: Only questions of the same namespace find it.
            cancellation: Ends it before the context is kept.

        Raises:
            ContextCancelled: It was ended; nothing is left of it.
            InvalidRequestError: The file is none of these, or damaged.
            ModelNotFoundError: No such model is loaded.
            StorageError: The workspace cannot be written.
        """
        start = time.perf_counter()
        file = file_path(path)
        with self._gate.working():
            archive = read_archive(Path(file))
            old = archive.record
            fields = record_fields(name or old.name, ttl_seconds, model_id, cache_namespace)
            info = self._core.model_info(fields.model_id or old.model_id)
            prompt = document_prompt(self._core, info.id, old.content)
            computed = old.computed_by(info, prompt.tokens)
            record = msgspec.structs.replace(
                computed,
                id=f"ctx_{secrets.token_hex(6)}",
                name=fields.name,
                model_id=info.id,
                ttl_seconds=fields.ttl_seconds,
                cache_namespace=fields.cache_namespace,
            )
            has_states = computed == old and archive.may_be_of(info)
            states = archive.read_states() if has_states else ()
            return self._add(record, prompt, start=start, states=states, cancellation=cancellation)

    def get(self, reference: str, *, cache_namespace: str = "") -> ContextView:
        """The context of that id or name.

        Raises:
            ContextNotFoundError: There is none, or it has expired.
        """
        return self._keeper.view(self._find(reference, cache_namespace))

    def list(
        self, *, tier: str | None = None, model_id: str | None = None, cache_namespace: str = ""
    ) -> list[ContextView]:
        """The contexts, oldest first; of one tier or model only where that is given."""
        if tier is not None:
            _check_tier(tier)
        views = [
            self._keeper.view(record)
            for record in self._catalog.all(cache_namespace)
            if model_id in (None, record.model_id)
        ]
        return [view for view in views if tier in (None, view.tier or "cold")]

    def move(self, reference: str, tier: str, *, cache_namespace: str = "") -> ContextView:
        """Moves a context's KV to a tier: into the KV memory, to RAM, or to disk only.

        What it shares with a context that is warmer stays for that one. An evicted model
        comes back for a context that is to be hot. KV of another model file than the one that is
        loaded under the id is computed anew, but for a context that is to be cold.

        Raises:
            OutOfMemoryError: The model's KV memory has no room for it.
            ContextTooLargeError: Warm, but RAM does not hold it.
            ModelNotFoundError: Hot, but its model is not loaded.
            NoWorkspaceError: Cold, but there is no workspace.
            StorageError: It cannot be written to disk.
        """
        record = self._find(reference, cache_namespace)
        wanted = _check_tier(tier)
        if wanted == "cold" and not self._catalog.has_workspace:
            raise NoWorkspaceError(
                "a cold context is on disk only, and nothing is kept there: start the server "
                "with --workspace DIR (Engine(workspace=...))",
                param="tier",
            )
        with self._gate.working(), self._keeper.lock_of(record.id):
            record = self._find(record.id, cache_namespace)
            for _ in range(MAX_RETURNS):
                with contextlib.suppress(ModelNotFoundError):
                    return self._move(record, wanted)
                # Evicted for another one in between it comes back; an unloaded one does not.
                self._core.model_info(record.model_id)
            return self._move(record, wanted)

    def _move(self, record: ContextRecord, tier: Tier) -> ContextView:
        if tier == "hot":
            self._core.ensure_resident(record.model_id)
        with self._not_removed(record):
            moved, _ = self._with_kv(
                record,
                lambda kept: self._keeper.move(kept, tier),
                # In no memory is there any use of what the loaded model cannot read.
                of_loaded_model=tier != "cold",
            )
            return self._keeper.view(moved)

    @contextlib.contextmanager
    def _not_removed(self, record: ContextRecord) -> Iterator[None]:
        """Says of what the store refuses in the block that the context was removed meanwhile, where
        that is the reason."""
        try:
            yield
        except StorageError:
            self._find(record.id, record.cache_namespace)
            raise

    def _with_kv(
        self,
        record: ContextRecord,
        use: Callable[[ContextRecord], _T],
        *,
        of_loaded_model: bool = False,
    ) -> tuple[ContextRecord, _T]:
        """What `use` makes of a context's KV, and the context: computed anew where the KV was lost,
        or its file proves damaged only as it is read."""
        record = self._keeper.with_kv(record, of_loaded_model=of_loaded_model)
        try:
            return record, use(record)
        except StorageError as error:
            if isinstance(error, ContextTooLargeError) or self._is_stored(record):
                raise
        record = self._keeper.with_kv(record, of_loaded_model=of_loaded_model)
        return record, use(record)

    def _is_stored(self, record: ContextRecord) -> bool:
        return self._core.prefix_info(record.prefix()).tier is not None

    def delete(self, reference: str, *, cache_namespace: str = "") -> ContextRecord:
        """Removes a context and what of its KV no other needs.

        Raises:
            ContextNotFoundError: There is no such context.
            StorageError: It cannot be removed from the disk; it is there as before.
        """
        record = self._find(reference, cache_namespace)
        removed = self._keeper.remove(record)
        if removed is None:  # by another caller, meanwhile
            raise ContextNotFoundError(f"Context not found: {reference}")
        return removed

    def query(
        self,
        reference: str,
        question: str,
        *,
        cache_namespace: str = "",
        **options: Unpack[ChatOptions],
    ) -> QueryResult:
        """Answers a question about a context's document.

        The answer is that of a chat with the document as its system turn.

        Args:
            reference: The context's id or name.
            question: What to ask.
            cache_namespace: The context's namespace.
            **options: See `snapllm.params.ChatOptions`; the temperature is 0 by default.

        Raises:
            ContextNotFoundError: There is no such context.
            InvalidRequestError: The question is empty, or an option is wrong.
        """
        start = time.perf_counter()
        if not check_text(question, "question"):
            raise InvalidRequestError("question must not be empty", param="question")
        record, request = self.questions.request(reference, question, cache_namespace, options)
        answer = fold_chat(self._runner.chat(request, stream=False))
        latency_ms = (time.perf_counter() - start) * 1000
        hit = self.questions.note(record, answer.usage, latency_ms)
        if not hit:
            record = self.questions.keep_again(record)
        return QueryResult(record=record, answer=answer, cache_hit=hit, latency_ms=latency_ms)

    def stats(self, *, cache_namespace: str = "") -> ContextStats:
        """Counts of contexts by tier, of memory, hits and misses."""
        views = self.list(cache_namespace=cache_namespace)
        tiers = [view.tier or "cold" for view in views]
        usage = self._core.prefix_usage(
            [(view.record.prefix(), view.tier) for view in views if view.tier is not None]
        )
        num_hits, num_misses, total_latency_ms = self.questions.counts.read(cache_namespace)
        return ContextStats(
            num_contexts=len(views),
            num_hot=tiers.count("hot"),
            num_warm=tiers.count("warm"),
            num_cold=tiers.count("cold"),
            memory_bytes=usage.hot_bytes + usage.ram_bytes,
            disk_bytes=usage.disk_bytes,
            num_hits=num_hits,
            num_misses=num_misses,
            total_latency_ms=total_latency_ms,
        )

    def remove_expired(self) -> int:
        """Removes the contexts whose time is over; returns their number. That is done by itself
        some seconds after it.

        Raises:
            StorageError: One cannot be removed from the disk; all others are, and nobody
                finds that one any more.
        """
        expired = self._catalog.expired()
        failures: list[StorageError] = []
        for record in expired:
            try:
                self._keeper.remove(record)
            except StorageError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return len(expired)

    def _expire(self) -> float | None:
        """Removes what has expired; returns when the next one does."""
        self.remove_expired()
        return self._catalog.next_expiry()

    def _add(
        self,
        record: ContextRecord,
        prompt: DocumentPrompt,
        progress: Progress | None = None,
        start: float | None = None,
        replaces: ContextRecord | None = None,
        states: Sequence[bytes] = (),
        cancellation: Cancellation | None = None,
    ) -> ContextView:
        start = time.perf_counter() if start is None else start
        try:
            num_cached = self._keeper.compute(record, prompt, progress, states, cancellation)
        except StorageError:
            if not self._catalog.expired():
                raise
            # They are removed later by themselves: what has room needs not wait for that.
            with contextlib.suppress(StorageError):
                self.remove_expired()
            num_cached = self._keeper.compute(record, prompt, progress, states, cancellation)
        # Its time counts from now on: the prefill may have taken longer than all of it.
        now = time.time()
        if replaces is None:
            record = msgspec.structs.replace(record, created_at=now, appended_at=None)
        else:
            record = msgspec.structs.replace(record, appended_at=now)
        view = self._keeper.view(record)
        self._keeper.store(record, replaces)
        self._timer.set(record.expires_at)
        self._keeper.note_use(record)
        self._keeper.make_hot(record)
        try:
            view = self._keeper.view(record)
        except EngineClosedError:
            # On disk it is kept: whoever heard otherwise would do it again, an append twice.
            if not self._catalog.has_workspace:
                raise
        ingest_ms = (time.perf_counter() - start) * 1000
        return msgspec.structs.replace(view, ingest_ms=ingest_ms, num_cached_tokens=num_cached)
