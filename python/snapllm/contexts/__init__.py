"""Contexts: documents whose KV is computed once and kept until they expire."""

from snapllm.contexts.cancellation import Cancellation, ContextCancelled
from snapllm.contexts.manager import ContextManager
from snapllm.contexts.record import ContextRecord
from snapllm.contexts.views import ContextStats, ContextView, QueryResult

__all__ = [
    "Cancellation",
    "ContextCancelled",
    "ContextManager",
    "ContextRecord",
    "ContextStats",
    "ContextView",
    "QueryResult",
]
