"""Answers that clients may refer to: what is kept, for whom and how much of it."""

from __future__ import annotations

import tracemalloc

from snapllm.protocol.responses_items import KeptItem
from snapllm.server.kept_responses import KeptResponses


def item(name: str, size: int = 100) -> KeptItem:
    return KeptItem(name, name.encode().ljust(size))


def test_the_oldest_answers_go_when_there_are_too_many() -> None:
    kept = KeptResponses(max_responses=2)
    own = kept.of("a")
    for name in "123":
        own.keep(f"resp_{name}", b"{}", [item(f"in_{name}")], [item(f"out_{name}")])
    assert own.body("resp_1") is None and own.item("out_1") is None
    assert own.conversation("resp_1") is None and own.input_items("resp_1") is None
    assert own.conversation("resp_2") == [item("in_2"), item("out_2")]


def test_the_oldest_answers_go_when_they_take_too_much() -> None:
    kept = KeptResponses(max_bytes=100_000)
    own = kept.of("a")
    for name in "1234567890":
        own.keep(name, b"x" * 10_000, [item(f"in_{name}", 9_000)], [item(f"out_{name}", 9_000)])
        assert kept.num_bytes <= 100_000
    assert own.body("7") is None and own.body("8") and own.body("9") and own.body("0")
    own.keep("large", b"{}", [item("large_in", 200_000)], [])
    assert own.body("large") is None and kept.num_bytes == 0


def test_what_a_conversation_has_in_common_is_kept_once() -> None:
    kept = KeptResponses()
    own = kept.of("a")
    beginning = item("long", 10_000)
    for name in "123":
        own.keep(name, b"{}", [item("long", 10_000)], [item(f"out_{name}")])
    assert 10_000 < kept.num_bytes < 15_000
    assert own.remove("1") and own.remove("2")
    assert own.item("long") == beginning and own.item("out_1") is None
    assert own.remove("3") and not own.remove("3")
    assert own.item("long") is None and kept.num_bytes == 0


def test_of_items_with_one_id_each_answer_has_its_own() -> None:
    own = KeptResponses().of("a")
    old, new = KeptItem("msg_1", b"old"), KeptItem("msg_1", b"new")
    own.keep("1", b"{}", [old], [])
    own.keep("2", b"{}", [new], [])
    assert (own.input_items("1"), own.input_items("2")) == ([old], [new])
    assert own.item("msg_1") == new
    own.remove("1")
    assert own.item("msg_1") == new


def test_of_items_with_one_id_the_latest_that_is_left_is_found() -> None:
    kept = KeptResponses()
    own = kept.of("a")
    versions = [KeptItem("msg_1", data) for data in (b"old", b"newer", b"newest")]
    for name, version in zip("123", versions, strict=True):
        own.keep(name, b"{}", [version], [])
    for name, version in zip("32", reversed(versions[:2]), strict=True):
        own.remove(name)
        assert own.item("msg_1") == version
    own.keep("4", b"{}", [versions[1]], [versions[0]])
    assert own.item("msg_1") == versions[0]
    own.remove("4")
    assert own.item("msg_1") == versions[0]
    own.remove("1")
    assert own.item("msg_1") is None and kept.num_bytes == 0


def test_the_bound_holds_for_many_small_items() -> None:
    """What keeping an item takes is ten times what a short one holds."""
    kept = KeptResponses()
    tracemalloc.start()
    try:
        for i in range(100):
            items = [KeptItem(f"msg_{i:08}{n:08}", str(n).encode()) for n in range(200)]
            kept.of("a").keep(f"resp_{i}", b"{}", items, [])
        del items
        assert tracemalloc.get_traced_memory()[0] <= kept.num_bytes
    finally:
        tracemalloc.stop()


def test_clients_of_other_keys_see_nothing_of_it() -> None:
    kept = KeptResponses()
    kept.of("a").keep("1", b"{}", [item("in")], [item("out")])
    other = kept.of("b")
    assert other.body("1") is None and other.item("in") is None and not other.remove("1")
    assert kept.of("a").body("1") == b"{}"
