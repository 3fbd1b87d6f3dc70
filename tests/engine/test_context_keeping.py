"""Contexts are kept: over restarts, whatever the disk's bound is, and whole or not at all."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from model_files import CHATML_TEMPLATE
from nano_models import make_nano_model

import snapllm
from snapllm.contexts.record import write_record

DOCUMENT = "The vacation policy is 20 days of paid vacation. The badge color is green. "
QUESTION = "What is the badge color?"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_nano_model(tmp_path / "m.gguf")


def open_engine(path: Path, workspace: Path | None, *, kv_disk_bytes: int = 0) -> snapllm.Engine:
    engine = snapllm.Engine(num_threads=1, workspace=workspace, kv_disk_bytes=kv_disk_bytes)
    engine.load(path, "m", context_size=2048, kv_cells=2048)
    return engine


def hits(engine: snapllm.Engine, name: str) -> bool:
    return engine.contexts.query(name, QUESTION, max_tokens=2).cache_hit


def test_contexts_survive_restarts_though_they_are_more_than_the_disk_bound(
    tmp_path: Path, path: Path
) -> None:
    names = [f"d{i}" for i in range(5)]
    with open_engine(path, tmp_path / "w") as engine:
        num_bytes = engine.contexts.ingest("d: " + DOCUMENT * 5, name="sample").disk_bytes
        engine.contexts.delete("sample")
    for is_first in (True, False, False):
        with open_engine(path, tmp_path / "w", kv_disk_bytes=2 * num_bytes) as engine:
            for name in names if is_first else []:
                engine.contexts.ingest(f"{name}: " + DOCUMENT * 5, name=name)
            assert [view.is_on_disk for view in engine.contexts.list()] == [True] * 5
            assert [hits(engine, name) for name in names] == [True] * 5
            assert engine.stats().kv_store.disk_bytes > 4 * num_bytes


def test_what_was_lost_and_computed_again_is_on_disk(tmp_path: Path, path: Path) -> None:
    with open_engine(path, tmp_path / "w") as engine:
        engine.contexts.ingest(DOCUMENT * 5, name="doc")
    for file in (tmp_path / "w" / "kv").rglob("*.kv"):
        file.unlink()
    with open_engine(path, tmp_path / "w") as engine:
        assert not engine.contexts.get("doc").is_on_disk
        assert not hits(engine, "doc")
        view = engine.contexts.get("doc")
        assert view.is_on_disk and view.disk_bytes > 0
    with open_engine(path, tmp_path / "w") as engine:
        assert hits(engine, "doc")


def test_one_that_expired_while_the_engine_was_off_leaves_its_twin_the_kv(
    tmp_path: Path, path: Path
) -> None:
    with open_engine(path, tmp_path / "w") as engine:
        twins = [engine.contexts.ingest(DOCUMENT, name=name).record for name in "ab"]
    over = msgspec.structs.replace(twins[0], created_at=time.time() - 100, ttl_seconds=1)
    write_record(tmp_path / "w" / "contexts", over)
    with open_engine(path, tmp_path / "w") as engine:
        assert [view.record.name for view in engine.contexts.list()] == ["b"]
        assert engine.contexts.get("b").is_on_disk
        assert hits(engine, "b")


def test_a_context_is_as_warm_as_what_its_questions_are_answered_from(
    tmp_path: Path, path: Path
) -> None:
    # Too long to be hot; the answer's own KV, from before the restart, holds all of it.
    with open_engine(path, tmp_path / "w") as engine:
        assert engine.contexts.ingest(DOCUMENT * 18, name="doc").tier == "warm"
        assert hits(engine, "doc")
    with open_engine(path, tmp_path / "w") as engine:
        contexts = engine.contexts
        assert contexts.get("doc").tier == "cold"
        assert hits(engine, "doc")
        view = contexts.get("doc")
        assert (view.tier, contexts.stats().num_warm) == ("warm", 1)
        assert view.ram_bytes > 0 and contexts.stats().memory_bytes > 0
        use = contexts.query("doc", QUESTION, max_tokens=2).answer.cache
        assert use.num_cold_tokens == 0
        contexts.move("doc", "cold")
        assert engine.stats().kv_store.ram_bytes == 0
        assert hits(engine, "doc")


def test_a_question_counts_the_tokens_of_the_model_file_that_answers(path: Path) -> None:
    document = DOCUMENT * 5
    with open_engine(path, None) as engine:
        old = engine.contexts.ingest(document, name="doc").record
        engine.unload("m")
        make_nano_model(path, seed=2, template="{{ 'The rules are these. ' }}" + CHATML_TEMPLATE)
        model = engine.load(path, "m")
        # By a chat too, so that nothing of the prompt is left to compute.
        chat = [{"role": "system", "content": document}, {"role": "user", "content": QUESTION}]
        prompt = model.chat(chat, max_tokens=2).usage.num_prompt_tokens
        first = engine.contexts.query("doc", QUESTION, max_tokens=2)
        assert not first.cache_hit
        assert first.record == engine.contexts.get("doc").record
        assert len(old.tokens) < len(first.record.tokens) < prompt
        assert first.answer.usage.num_prompt_tokens == prompt
        again = engine.contexts.query("doc", QUESTION, max_tokens=2)
        assert again.cache_hit and again.record == first.record


def test_what_the_loaded_model_cannot_use_is_not_stored_and_computed_anew_to_be_warm(
    tmp_path: Path, path: Path
) -> None:
    with open_engine(path, tmp_path / "w") as engine:
        old = engine.contexts.ingest(DOCUMENT * 5, name="doc").record
    make_nano_model(path, seed=2)
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "w") as engine:
        assert engine.contexts.get("doc").is_on_disk  # whose use nobody knows
        engine.load(path, "m", context_size=2048, kv_cells=2048)
        assert not engine.contexts.get("doc").is_on_disk
        assert engine.contexts.move("doc", "cold").record == old
        view = engine.contexts.move("doc", "warm")
        assert (view.tier, view.is_on_disk) == ("warm", True)
        assert view.record.fingerprint != old.fingerprint
        assert hits(engine, "doc")


def test_a_demotion_that_fails_changes_nothing(path: Path) -> None:
    with open_engine(path, None) as engine:
        before = engine.contexts.ingest(DOCUMENT, name="doc")
        assert before.tier == "hot" and not before.is_on_disk
        with pytest.raises(snapllm.NoWorkspaceError, match="--workspace"):
            engine.contexts.move("doc", "cold")
        after = engine.contexts.get("doc")
        assert (after.tier, after.hot_bytes) == ("hot", before.hot_bytes)


@pytest.mark.parametrize("has_workspace", [False, True])
def test_a_context_that_ram_is_too_small_for_is_refused_with_what_it_needs(
    tmp_path: Path, path: Path, has_workspace: bool
) -> None:
    workspace = tmp_path / "w" if has_workspace else None
    # Less than a piece of 256 tokens, which is 67 KB; and less than all of the document.
    for num_bytes, is_kept in ((40_000, False), (100_000, has_workspace)):
        with snapllm.Engine(num_threads=1, workspace=workspace, kv_ram_bytes=num_bytes) as engine:
            engine.load(path, "m", context_size=2048, kv_cells=2048)
            if is_kept:
                view = engine.contexts.ingest(DOCUMENT * 20)
                assert view.is_on_disk and view.disk_bytes > num_bytes
                continue
            with pytest.raises(snapllm.ContextTooLargeError) as caught:
                engine.contexts.ingest(DOCUMENT * 20)
            assert f"at most {num_bytes / 1e6:.2f} MB" in caught.value.message
            assert "--kv-ram" in caught.value.message
            assert ("--workspace" in caught.value.message) == (not has_workspace)
            assert engine.contexts.list() == []


@pytest.mark.parametrize("before", ["cold", "hot"])
def test_what_ram_does_not_hold_cannot_be_made_warm(
    tmp_path: Path, path: Path, before: str
) -> None:
    with snapllm.Engine(num_threads=1, workspace=tmp_path, kv_ram_bytes=100_000) as engine:
        engine.load(path, "m", context_size=2048, kv_cells=2048)
        engine.contexts.ingest("Short.", name="other")
        engine.contexts.ingest(DOCUMENT * 10, name="doc")
        assert engine.contexts.move("doc", before).tier == before
        engine.contexts.move("other", "warm")
        with pytest.raises(snapllm.ContextTooLargeError, match="--kv-ram") as caught:
            engine.contexts.move("doc", "warm")
        assert caught.value.param == "tier"
        assert engine.contexts.get("doc").tier == before
        assert engine.contexts.get("other").tier == "warm"
        assert hits(engine, "doc")


def test_an_ingest_that_fails_leaves_nothing_behind(tmp_path: Path, path: Path) -> None:
    with open_engine(path, tmp_path / "w") as engine:
        engine.contexts.ingest(DOCUMENT, name="small")
        before = engine.stats().kv_store
        folder = tmp_path / "w" / "kv"
        folder.rename(tmp_path / "aside")
        folder.touch()
        with pytest.raises(snapllm.StorageError):
            engine.contexts.ingest(DOCUMENT * 10, name="large")
        after = engine.stats().kv_store
        assert (after.num_pieces, after.ram_bytes) == (before.num_pieces, before.ram_bytes)
        folder.unlink()
        (tmp_path / "aside").rename(folder)
        assert engine.contexts.ingest(DOCUMENT * 5, name="next").is_on_disk
        assert hits(engine, "small")


def test_an_ingest_that_the_engines_end_cuts_off_has_one_reason(tmp_path: Path) -> None:
    engine = snapllm.Engine(num_threads=1, workspace=tmp_path / "w")
    engine.load(make_nano_model(tmp_path / "long.gguf", context_size=32768), "m")
    has_begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        ingest = threads.submit(
            engine.contexts.ingest, DOCUMENT * 400, progress=lambda *_: has_begun.set()
        )
        assert has_begun.wait(20)
        engine.close()
        error = ingest.exception(10)
    assert isinstance(error, snapllm.EngineClosedError)
    assert error.__context__ is None


def test_names_that_no_url_can_hold_are_refused(tmp_path: Path, path: Path) -> None:
    with open_engine(path, None) as engine:
        context_id = engine.contexts.ingest(DOCUMENT, name="...").record.id
        engine.contexts.export_file(context_id, tmp_path / "c.snapctx")
        for name in (".", ".."):
            for make in (
                lambda name=name: engine.contexts.ingest(DOCUMENT, name=name),
                lambda name=name: engine.contexts.fork(context_id, name=name),
                lambda name=name: engine.contexts.import_file(tmp_path / "c.snapctx", name=name),
            ):
                with pytest.raises(snapllm.InvalidRequestError) as caught:
                    make()
                assert caught.value.param == "name"
        assert len(engine.contexts.list()) == 1


def test_a_document_that_leaves_no_room_for_a_question_is_refused(
    tmp_path: Path, path: Path
) -> None:
    with open_engine(path, tmp_path / "w") as engine:
        length = 2000
        with pytest.raises(
            snapllm.ContextLengthExceededError, match="with a question it is at least 2048 tokens"
        ) as caught:
            for length in range(2000, 2048):
                engine.contexts.ingest("x" * length, name="doc")
        assert caught.value.param == "content"
        assert engine.contexts.query("doc", "A", max_tokens=1).answer.usage.num_prompt_tokens < 2048
        with pytest.raises(snapllm.ContextLengthExceededError, match="with a question"):
            engine.contexts.append("doc", "xx")
        assert engine.contexts.get("doc").record.content == "x" * (length - 1)
