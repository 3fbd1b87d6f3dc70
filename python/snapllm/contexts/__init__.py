"""Contexts: documents whose KV is computed once and kept until they expire."""

from snapllm.contexts.manager import ContextManager, ContextStats, ContextView, QueryResult
from snapllm.contexts.record import ContextRecord

__all__ = ["ContextManager", "ContextRecord", "ContextStats", "ContextView", "QueryResult"]
