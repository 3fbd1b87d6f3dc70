"""Why a request computed what it computed: reports on the latest requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

from snapllm.outputs import ChatResult, Completion, Finish
from snapllm.protocol.server_facts import CacheReport

MAX_REPORTS = 1000

Ended: TypeAlias = Finish | ChatResult | Completion
"""The end of an answer, or the answer whole."""


class CacheReports:
    """The reports of the latest requests, by request id. Event loop only.

    Clients of different namespaces do not see each other's: a client may choose its ids.
    """

    def __init__(self) -> None:
        self._reports: OrderedDict[tuple[str, str], list[CacheReport]] = OrderedDict()

    def note(
        self, namespace: str, request_id: str, model_id: str, finishes: Sequence[Ended]
    ) -> None:
        """Keeps the reports of a request's answers; drops the oldest."""
        self._reports[namespace, request_id] = [_report(model_id, finish) for finish in finishes]
        while len(self._reports) > MAX_REPORTS:
            self._reports.popitem(last=False)

    def find(self, namespace: str, request_id: str) -> list[CacheReport] | None:
        """The reports of a request's answers; None when it is not known."""
        return self._reports.get((namespace, request_id))


def _report(model_id: str, finish: Ended) -> CacheReport:
    usage, cache = finish.usage, finish.cache
    return {
        "model": model_id,
        "prompt_tokens": usage.num_prompt_tokens,
        "cached_tokens": usage.num_cached_tokens,
        "computed_tokens": usage.num_prompt_tokens - usage.num_cached_tokens,
        "hot_tokens": cache.num_hot_tokens,
        "warm_tokens": cache.num_warm_tokens,
        "cold_tokens": cache.num_cold_tokens,
        "restore_ms": round(cache.restore_ms, 3),
        "differs_at": cache.differs_at,
        "cached_token": cache.cached_token,
    }


def cache_header(finishes: Sequence[Ended]) -> str:
    """The value of the x-snapllm-cache header."""
    total = sum(finish.usage.num_prompt_tokens for finish in finishes)
    return (
        f"hot={sum(f.cache.num_hot_tokens for f in finishes)}, "
        f"warm={sum(f.cache.num_warm_tokens for f in finishes)}, "
        f"cold={sum(f.cache.num_cold_tokens for f in finishes)}, prompt={total}"
    )
