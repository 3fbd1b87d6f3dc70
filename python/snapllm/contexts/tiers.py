"""How warm each context may be: contexts share KV, but each is moved on its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

from snapllm import _core
from snapllm.contexts.record import ContextRecord
from snapllm.contexts.views import Tier
from snapllm.errors import ContextNotFoundError

_WARMTH: dict[Tier | None, int] = {None: 0, "cold": 1, "warm": 2, "hot": 3}
_BLOCK_TOKENS = 256  # of the store: what differs within the first shares no stored piece


class TierLimits:
    """The warmest tier that callers left each context in. Any thread may use it.

    What a context shares with a warmer one stays where that one needs it; then the
    context itself counts as no warmer than it was left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[str, Tier] = {}

    def set(self, context_id: str, tier: Tier) -> None:
        """Says that a caller moved a context."""
        with self._lock:
            self._limits[context_id] = tier

    @contextlib.contextmanager
    def moving(self, context_id: str, tier: Tier) -> Iterator[None]:
        """While a context moves: if to a warmer tier, others leave it what they share from now on.
        It is left in the tier then, or as it was before where the move fails."""
        with self._lock:
            before = self._limits.get(context_id)
            self._limits[context_id] = max(tier, before or "hot", key=_WARMTH.__getitem__)
        try:
            yield
        except BaseException as error:
            is_gone = isinstance(error, ContextNotFoundError)
            self.lift(context_id) if before is None or is_gone else self.set(context_id, before)
            raise
        self.set(context_id, tier)

    def lift(self, context_id: str) -> None:
        """Says that a context is in use, or gone: it is as warm as its KV."""
        with self._lock:
            self._limits.pop(context_id, None)

    def apply(self, context_id: str, tier: Tier | None) -> Tier | None:
        """The tier that a context counts as, whose KV is in `tier`."""
        with self._lock:
            limit = self._limits.get(context_id, "hot")
        return min(tier, limit, key=_WARMTH.__getitem__)

    def staying(
        self, record: ContextRecord, tier: Tier, others: Iterable[ContextRecord]
    ) -> list[_core.PrefixRef]:
        """The contexts that may be warmer than `tier` and share KV with one."""
        with self._lock:
            limits = dict(self._limits)
        return [
            other.prefix()
            for other in others
            if other.id != record.id
            and _WARMTH[limits.get(other.id, "hot")] > _WARMTH[tier]
            and _may_share(record, other)
        ]


def _may_share(a: ContextRecord, b: ContextRecord) -> bool:
    # Two ids on one file share what is stored, if not the KV memory; the core tells them apart.
    scopes = {(each.fingerprint, each.kv_kind, each.cache_namespace) for each in (a, b)}
    num_tokens = min(_BLOCK_TOKENS, len(a.tokens), len(b.tokens))
    return len(scopes) == 1 and a.tokens[:num_tokens] == b.tokens[:num_tokens]
