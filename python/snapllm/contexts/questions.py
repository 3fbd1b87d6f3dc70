"""Questions about contexts: made into chats, and counted once they are answered."""

from __future__ import annotations

import logging

import msgspec

from snapllm._requests import chat_request
from snapllm._runner import Runner
from snapllm.contexts.catalog import ContextCatalog
from snapllm.contexts.counts import QueryCounts
from snapllm.contexts.keeper import KvKeeper
from snapllm.contexts.prompt import document_messages
from snapllm.contexts.record import ContextRecord
from snapllm.errors import (
    ContextNotFoundError,
    InvalidRequestError,
    ModelNotFoundError,
    SnapLLMError,
)
from snapllm.outputs import Usage
from snapllm.params import ChatOptions, ChatRequest

log = logging.getLogger("snapllm.contexts")


class Questions:
    """Turns questions into chats about a context's document. Any thread may use it.

    Args:
        runner: The engine's runner.
        keeper: Keeps the contexts' KV.
        catalog: Where contexts are found.
    """

    def __init__(self, runner: Runner, keeper: KvKeeper, catalog: ContextCatalog) -> None:
        self._core, self._gate = runner.core, runner.gate
        self._keeper, self._catalog = keeper, catalog
        self.counts = QueryCounts()
        """Of the questions that were answered."""

    def request(
        self, reference: str, question: str, cache_namespace: str, options: ChatOptions
    ) -> tuple[ContextRecord, ChatRequest]:
        """The chat that asks the question; `note` is to be told of its end.

        Raises:
            ContextNotFoundError: There is no such context.
            InvalidRequestError: The question is empty, or an option is wrong.
        """
        record = self._catalog.find(reference, cache_namespace)
        if not question:
            raise InvalidRequestError("query must not be empty", param="query")
        self._keeper.note_use(record)
        options = {"temperature": 0.0, **options}
        request = chat_request(record.model_id, question, options)
        return record, msgspec.structs.replace(
            request,
            messages=document_messages(record.content, request.messages),
            cache_namespace=cache_namespace,
        )

    def note(self, record: ContextRecord, usage: Usage, latency_ms: float) -> bool:
        """Counts a question that was answered; returns whether its document was cached.

        After a miss `keep_again` is to be called. Where the model's file is another by now it is
        a miss, whatever of the prompt was cached: the context is still to be kept for that one.
        """
        is_cached = usage.num_cached_tokens >= len(record.tokens)
        hit = is_cached and not self._keeper.is_outdated(record)
        self.counts.note(record.cache_namespace, hit, latency_ms)
        return hit

    def keep_again(self, record: ContextRecord) -> ContextRecord:
        """Keeps the KV anew of a document that a question missed; waits for the model.

        Returns:
            The context as it is kept now, with the tokens of another model file where that has
            taken the place of the old one.
        """
        try:
            with self._gate.working():
                return self._keeper.restore(record)
        except SnapLLMError as error:  # the question has its answer all the same
            log.warning("context %s is not kept: %s", record.id, error)
            return record

    def resolve(self, request: ChatRequest) -> ChatRequest:
        """Turns the model name ``model@context`` into the model and the document.

        A model that was loaded under such an id goes first. Of contexts of one name the newest of
        that model is meant, and of ``@context`` the newest of all.

        Raises:
            ModelNotFoundError: No such model is loaded.
            ContextNotFoundError: There is no such context, or it is another model's.
        """
        model_ids = [info.id for info in self._core.models()]
        if "@" not in request.model or request.model in model_ids:
            return request
        # A context's name may hold an @ too: the model's id decides where it begins.
        known = [name for name in ["", *model_ids] if request.model.startswith(f"{name}@")]
        if not known:
            raise ModelNotFoundError(f"Model not found: {request.model}")
        model_id = max(known, key=len)
        reference = request.model[len(model_id) + 1 :]
        if not reference:
            return request
        record = self._find_of(model_id, reference, request.cache_namespace)
        self._keeper.note_use(record)
        return msgspec.structs.replace(
            request,
            model=record.model_id,
            messages=document_messages(record.content, request.messages),
        )

    def _find_of(self, model_id: str, reference: str, cache_namespace: str) -> ContextRecord:
        """The context of that id or name of a model; "" = of any."""
        try:
            return self._catalog.find(reference, cache_namespace, model_id)
        except ContextNotFoundError:
            other = self._catalog.find(reference, cache_namespace)  # raises where there is none
            message = f"Context {reference} is of model {other.model_id}"
            raise ContextNotFoundError(message) from None
