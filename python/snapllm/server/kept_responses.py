"""Answers that clients may refer to later: in memory, and bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from snapllm.protocol.responses_items import KeptItem

MAX_RESPONSES = 1000
MAX_BYTES = 128 << 20
# What keeping takes beside the data itself, as measured.
_REFERENCE_BYTES = 8
_ITEM_BYTES = 600
_RESPONSE_BYTES = 500


class _Response(msgspec.Struct, frozen=True):
    body: bytes
    input: Sequence[KeptItem]
    output: Sequence[KeptItem]

    @property
    def own_bytes(self) -> int:
        """What it takes beside its items, which others may have too."""
        num_references = len(self.input) + len(self.output)
        return _RESPONSE_BYTES + len(self.body) + _REFERENCE_BYTES * num_references


def _item_bytes(item: KeptItem) -> int:
    return _ITEM_BYTES + len(item.id) + len(item.data)


class KeptResponses:
    """The latest answers of all clients; the oldest go first. Any thread may find them; the
    others' methods are the event loop's.

    Clients of different namespaces do not see each other's.
    """

    def __init__(self, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._responses: OrderedDict[tuple[str, str], _Response] = OrderedDict()
        # The items of an id by their data, the latest last. Each is there once, with the number of
        # its uses: all turns of a conversation have its beginning, whether a client refers to it
        # or sends it again.
        self._items: dict[tuple[str, str], dict[bytes, tuple[KeptItem, int]]] = {}
        self.num_bytes = 0
        self._lock = threading.Lock()  # of the items

    def of(self, namespace: str) -> OwnResponses:
        """Those of one client."""
        return OwnResponses(self, namespace)

    def find(self, namespace: str, response_id: str) -> _Response | None:
        """An answer, if it is kept."""
        return self._responses.get((namespace, response_id))

    def find_item(self, namespace: str, item_id: str) -> KeptItem | None:
        """An item of any answer of the client; of several with the id the latest."""
        with self._lock:
            versions = self._items.get((namespace, item_id))
            return next(reversed(versions.values()))[0] if versions else None

    def add(self, namespace: str, response_id: str, response: _Response) -> None:
        """Keeps an answer; drops the oldest ones that there is no room for."""
        response = _Response(
            response.body,
            [self._use(namespace, item) for item in response.input],
            [self._use(namespace, item) for item in response.output],
        )
        self._responses[namespace, response_id] = response
        self.num_bytes += response.own_bytes
        while len(self._responses) > self._max_responses or self.num_bytes > self._max_bytes:
            self.remove(*next(iter(self._responses)))

    def remove(self, namespace: str, response_id: str) -> bool:
        """Forgets an answer, and its items that no other has; False = it is not kept."""
        response = self._responses.pop((namespace, response_id), None)
        if response is None:
            return False
        self.num_bytes -= response.own_bytes
        for item in (*response.input, *response.output):
            self._let_go(namespace, item)
        return True

    def _use(self, namespace: str, item: KeptItem) -> KeptItem:
        """The one object for all items that are the same."""
        with self._lock:
            versions = self._items.setdefault((namespace, item.id), {})
            kept, uses = versions.pop(item.data, (item, 0))
            versions[kept.data] = kept, uses + 1
        self.num_bytes += 0 if uses else _item_bytes(kept)
        return kept

    def _let_go(self, namespace: str, item: KeptItem) -> None:
        with self._lock:
            versions = self._items[namespace, item.id]
            _, uses = versions[item.data]
            if uses > 1:
                versions[item.data] = item, uses - 1
                return
            self.num_bytes -= _item_bytes(item)
            del versions[item.data]
            if not versions:
                del self._items[namespace, item.id]


class OwnResponses:
    """The answers that one client may refer to."""

    def __init__(self, all_responses: KeptResponses, namespace: str) -> None:
        self._all = all_responses
        self._namespace = namespace

    def keep(
        self, response_id: str, body: bytes, given: Sequence[KeptItem], output: Sequence[KeptItem]
    ) -> None:
        """Keeps an answer: its body, the items of its input and its own."""
        self._all.add(self._namespace, response_id, _Response(body, given, output))

    def body(self, response_id: str) -> bytes | None:
        """The body of an answer; None = it is not kept."""
        found = self._all.find(self._namespace, response_id)
        return found.body if found is not None else None

    def input_items(self, response_id: str) -> Sequence[KeptItem] | None:
        """The items of an answer's input; None = it is not kept."""
        found = self._all.find(self._namespace, response_id)
        return found.input if found is not None else None

    def conversation(self, response_id: str) -> Sequence[KeptItem] | None:
        """The items of an answer's input, then of the answer; None = it is not kept."""
        found = self._all.find(self._namespace, response_id)
        return [*found.input, *found.output] if found is not None else None

    def item(self, item_id: str) -> KeptItem | None:
        """An item of any of them; None = it is not kept."""
        return self._all.find_item(self._namespace, item_id)

    def remove(self, response_id: str) -> bool:
        """Forgets an answer; False = it is not kept."""
        return self._all.remove(self._namespace, response_id)
