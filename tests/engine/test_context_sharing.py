"""Contexts that have KV in common, or change at the same time: each is its own."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nano_models import make_nano_model

import snapllm
from snapllm.contexts.views import ContextView

HEAD = "ACME Corporation employee handbook, all rights reserved. "


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[snapllm.Engine]:
    with snapllm.Engine(workspace=tmp_path / "work", num_threads=1) as engine:
        engine.load_demo(mmproj_path="")
        yield engine


def tiers(engine: snapllm.Engine) -> dict[str, str | None]:
    return {view.record.name: view.tier for view in engine.contexts.list()}


@contextlib.contextmanager
def submission(engine: snapllm.Engine) -> Iterator[None]:
    """Ends when one more request has been submitted."""
    before = engine.stats().models[0].num_requests
    yield
    deadline = time.monotonic() + 10
    while engine.stats().models[0].num_requests == before:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_documents_with_a_common_beginning_are_moved_on_their_own(engine: snapllm.Engine) -> None:
    contexts = engine.contexts
    contexts.ingest(HEAD + "Chapter one: the vacation policy is 20 days.", name="one")
    contexts.ingest(HEAD + "Chapter two: the office opens at 8:30.", name="two")
    cold = contexts.move("one", "cold")
    assert (cold.tier, cold.hot_bytes, cold.ram_bytes) == ("cold", 0, 0)
    assert tiers(engine) == {"one": "cold", "two": "hot"}
    assert [view.record.name for view in contexts.list(tier="cold")] == ["one"]
    answer = contexts.query("two", "When does the office open?")
    assert answer.cache_hit and "8:30" in answer.answer.content
    assert contexts.move("one", "warm").tier == "warm"
    answer = contexts.query("one", "What is the vacation policy?")
    assert answer.cache_hit and "20 days" in answer.answer.content


def test_the_same_document_twice_is_stored_once_and_moved_apart(engine: snapllm.Engine) -> None:
    contexts = engine.contexts
    alone = contexts.ingest("The same text about cats.", name="a")
    before = contexts.stats()
    contexts.ingest("The same text about cats.", name="b")
    both = contexts.stats()
    assert (both.memory_bytes, both.disk_bytes) == (before.memory_bytes, before.disk_bytes)
    assert contexts.get("b").disk_bytes == alone.disk_bytes
    contexts.move("a", "warm")
    assert tiers(engine) == {"a": "warm", "b": "hot"}
    contexts.move("a", "cold")
    assert tiers(engine) == {"a": "cold", "b": "hot"}
    contexts.move("b", "cold")
    assert contexts.stats().memory_bytes == 0
    contexts.delete("a")
    assert contexts.get("b").disk_bytes == alone.disk_bytes


def test_deleting_a_context_leaves_its_twin_hot(engine: snapllm.Engine) -> None:
    for name in ("a", "b"):
        engine.contexts.ingest("The same text about cats.", name=name)
    engine.contexts.delete("a")
    assert tiers(engine) == {"b": "hot"}


def cells(engine: snapllm.Engine) -> dict[str, int]:
    return {stats.id: stats.num_kv_cells_used for stats in engine.stats().models}


@pytest.fixture
def twins(engine: snapllm.Engine) -> tuple[ContextView, ContextView]:
    """The same document for two ids of one file."""
    engine.load_demo("twin", mmproj_path="")
    document = HEAD + "The office opens at 8:30."
    one = engine.contexts.ingest(document, "demo", name="one")
    return one, engine.contexts.ingest(document, "twin", name="two")


def test_ids_of_one_file_have_a_context_stored_once_and_hot_in_each(
    engine: snapllm.Engine, twins: tuple[ContextView, ContextView]
) -> None:
    one, two = twins
    stats = engine.contexts.stats()
    assert one.hot_bytes == two.hot_bytes > 0
    assert stats.memory_bytes == one.hot_bytes + two.hot_bytes + one.ram_bytes
    assert stats.disk_bytes == one.disk_bytes == two.disk_bytes
    assert engine.contexts.move("one", "warm").hot_bytes == 0
    assert engine.contexts.stats().memory_bytes == stats.memory_bytes - one.hot_bytes


def test_what_is_demoted_leaves_the_kv_memory_whatever_another_id_of_the_file_has(
    engine: snapllm.Engine, twins: tuple[ContextView, ContextView]
) -> None:
    two = twins[1]
    engine.contexts.move("one", "cold")
    assert tiers(engine) == {"one": "cold", "two": "hot"}
    assert cells(engine) == {"demo": 0, "twin": len(two.record.tokens)}
    assert engine.contexts.get("two").ram_bytes == two.ram_bytes > 0
    assert engine.contexts.move("two", "warm").ram_bytes == two.ram_bytes
    assert engine.contexts.query("one", "When does the office open?").cache_hit
    engine.contexts.move("one", "cold")
    assert tiers(engine) == {"one": "cold", "two": "warm"}
    engine.contexts.move("two", "cold")
    assert engine.contexts.stats().memory_bytes == 0


def test_what_is_deleted_leaves_the_kv_memory_whatever_another_id_of_the_file_has(
    engine: snapllm.Engine, twins: tuple[ContextView, ContextView]
) -> None:
    engine.contexts.delete("one")
    assert cells(engine) == {"demo": 0, "twin": len(twins[1].record.tokens)}
    assert engine.contexts.query("two", "When does the office open?").cache_hit
    engine.contexts.delete("two")
    assert cells(engine)["demo"] == 0
    assert engine.contexts.stats().disk_bytes == 0


def test_texts_appended_at_once_are_all_there(engine: snapllm.Engine) -> None:
    contexts = engine.contexts
    contexts.ingest("Start.", name="log")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: contexts.append("log", f"Line {i}."), range(8)))
    content = contexts.get("log").record.content
    assert all(f"Line {i}." in content for i in range(8))


def test_a_deleted_context_does_not_come_back_with_an_append(engine: snapllm.Engine) -> None:
    contexts = engine.contexts
    context_id = contexts.ingest("Start.").record.id

    with ThreadPoolExecutor(1) as threads:
        with submission(engine):
            append = threads.submit(contexts.append, context_id, "Fact number one. " * 400)
        contexts.delete(context_id)
        with pytest.raises(snapllm.SnapLLMError):
            append.result()
    with pytest.raises(snapllm.SnapLLMError, match="not found"):
        contexts.get(context_id)


def test_an_id_means_its_context_whatever_others_are_named(engine: snapllm.Engine) -> None:
    contexts = engine.contexts
    first = contexts.ingest("The vacation is 20 days.").record.id
    contexts.ingest("The vacation is 33 days.", name=first)
    assert contexts.get(first).record.id == first


def test_a_name_means_the_newest_of_the_model_that_is_named(
    tmp_path: Path, llama_path: Path
) -> None:
    question = [{"role": "user", "content": "What?"}]
    with snapllm.Engine(num_threads=1) as engine:
        for model_id in "ab":
            engine.load(llama_path, model_id)
        for model_id, content in (("a", "One."), ("a", "One and two."), ("b", "One, two, three.")):
            engine.contexts.ingest(content, model_id, name="hb")

        def num_tokens(name: str) -> int:
            return engine.model(name).chat(question, max_tokens=1).usage.num_prompt_tokens

        of_a, of_b = (
            num_tokens(f"{view.record.model_id}@{view.record.id}")
            for view in engine.contexts.list()[1:]
        )
        assert of_a < of_b
        assert (num_tokens("a@hb"), num_tokens("b@hb"), num_tokens("@hb")) == (of_a, of_b, of_b)
        engine.contexts.delete("hb")
        with pytest.raises(snapllm.ContextNotFoundError, match="hb is of model a"):
            num_tokens("b@hb")
        assert num_tokens("@hb") == num_tokens("a@hb") == of_a


def test_an_answer_is_given_also_where_the_kv_cannot_be_kept(
    engine: snapllm.Engine, tmp_path: Path
) -> None:
    contexts = engine.contexts
    contexts.ingest("Fact number one. The code is 77. " * 60, name="long")
    contexts.move("long", "cold")
    folder = tmp_path / "work" / "kv"
    shutil.rmtree(folder)
    folder.touch()
    result = contexts.query("long", "What is the code?", max_tokens=10)
    assert not result.cache_hit and result.answer.content
    folder.unlink()
    assert contexts.ingest("Written again. " * 5).disk_bytes > 0


def test_a_context_that_is_being_computed_is_kept_when_the_engine_ends(
    engine: snapllm.Engine, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    document = "Fact number one. " * 500

    def ingest() -> None:
        engine.contexts.ingest(document, name="late", progress=lambda *step: steps.append(step))

    thread = threading.Thread(target=ingest)
    with submission(engine):
        thread.start()
    engine.close(60)
    thread.join()
    assert steps[-1][0] == steps[-1][1] > 0
    with snapllm.Engine(workspace=tmp_path / "work") as again:
        assert [view.record.name for view in again.contexts.list()] == ["late"]
        with pytest.raises(snapllm.EngineClosedError):
            engine.contexts.ingest("More.")


def test_an_evicted_model_comes_back_for_a_context_that_is_to_be_hot(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf")
    with snapllm.Engine(num_threads=1, keep_alive_s=0.2) as engine:
        engine.load(path, "m", context_size=512)
        engine.contexts.ingest("A document of its own.", name="doc")
        deadline = time.monotonic() + 10
        while engine.model("m").info.state != "evicted" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert engine.contexts.get("doc").tier == "warm"
        assert engine.contexts.move("doc", "hot").tier == "hot"


def test_contexts_whose_kv_is_lost_count_as_cold(tmp_path: Path) -> None:
    with snapllm.Engine(workspace=tmp_path, num_threads=1) as engine:
        engine.load_demo(mmproj_path="")
        engine.contexts.ingest("A document of its own.", name="doc")
    shutil.rmtree(tmp_path / "kv")
    (tmp_path / "contexts" / "ctx_0.1.tmp").touch()
    with snapllm.Engine(workspace=tmp_path, num_threads=1) as engine:
        engine.load_demo(mmproj_path="")
        assert engine.contexts.stats().num_cold == len(engine.contexts.list(tier="cold")) == 1
    assert not list((tmp_path / "contexts").glob("*.tmp"))


def test_a_context_is_ingested_though_its_model_is_evicted_at_once(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf")
    with snapllm.Engine(workspace=tmp_path / "w", num_threads=1, keep_alive_s=0.001) as engine:
        engine.load(path, "m", context_size=512)
        for i in range(5):
            engine.contexts.ingest(f"Document number {i}.", name=f"{i}")
        assert len(engine.contexts.list()) == 5


def test_what_was_appended_to_a_hot_context_is_hot(engine: snapllm.Engine) -> None:
    engine.contexts.ingest("The vacation is 20 days.", name="log")
    engine.contexts.append("log", "The office opens at 8:30.")
    assert engine.contexts.get("log").tier == "hot"
    answer = engine.contexts.query("log", "When does the office open?")
    assert answer.answer.usage.num_cached_tokens == len(answer.record.tokens)


def test_counts_are_read_while_engines_end() -> None:
    stop = threading.Event()
    engines: list[snapllm.Engine] = [snapllm.Engine(num_threads=1)]

    def read() -> None:
        while not stop.is_set():
            engines[-1].stats()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        engines.append(snapllm.Engine(num_threads=1))
        engines[-2].close()
    stop.set()
    for thread in threads:
        thread.join()
    engines[-1].close()


def test_a_fork_is_of_the_model_that_is_loaded_now(tmp_path: Path, llama_path: Path) -> None:
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "w") as engine:
        engine.load(llama_path, "m", kv_type="f16")
        engine.contexts.ingest("The vacation policy is 20 days. " * 9, "m", name="a")
    shutil.rmtree(tmp_path / "w" / "kv")
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "w") as engine:
        model = engine.load(llama_path, "m", kv_type="f32")
        fork = engine.contexts.fork("a", name="b")
        assert (fork.record.fingerprint, fork.tier) == (model.info.fingerprint, "hot")
        assert engine.contexts.query("b", "How many days?", max_tokens=1).cache_hit
