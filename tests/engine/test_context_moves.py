"""Contexts are moved while others come and go, and where their files prove damaged."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from nano_models import Architecture, make_nano_model

import snapllm
from snapllm import ContextNotFoundError, ContextTooLargeError, StorageError
from snapllm.contexts import ContextManager

DOCUMENT = "The vacation policy is 20 days of paid vacation. The badge color is green. "


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_nano_model(tmp_path / "m.gguf")


def open_engine(path: Path, workspace: Path | None, **options: int) -> snapllm.Engine:
    engine = snapllm.Engine(num_threads=1, workspace=workspace, **options)  # type: ignore[arg-type]
    engine.load(path, "m", context_size=2048)
    return engine


def test_a_context_whose_file_proves_damaged_is_computed_anew_as_it_is_moved(
    tmp_path: Path, path: Path
) -> None:
    with open_engine(path, tmp_path / "w") as engine:
        engine.contexts.ingest(DOCUMENT * 5, name="doc")
    with open_engine(path, tmp_path / "w") as engine:
        for file in (tmp_path / "w" / "kv").rglob("*.kv"):
            file.write_bytes(file.read_bytes()[:-8] + bytes(8))
        view = engine.contexts.move("doc", "warm")
        assert (view.tier, view.is_on_disk) == ("warm", True)
        assert engine.contexts.query("doc", "Which color?", max_tokens=2).cache_hit


@pytest.mark.parametrize("loss", ["damaged", "missing"])
def test_a_context_whose_file_is_lost_is_computed_anew_as_it_is_exported(
    tmp_path: Path, path: Path, loss: str
) -> None:
    with open_engine(path, tmp_path / "w") as engine:
        engine.contexts.ingest(DOCUMENT * 10, name="doc")
        engine.contexts.export_file("doc", tmp_path / "before")
    with open_engine(path, tmp_path / "w") as engine:
        file = next((tmp_path / "w" / "kv").rglob("*.kv"))
        if loss == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-8] + bytes(8))
        engine.contexts.export_file("doc", tmp_path / "after")
        assert engine.contexts.get("doc").is_on_disk
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


def test_an_export_that_a_deletion_cuts_off_finds_no_context(tmp_path: Path, path: Path) -> None:
    with open_engine(path, None) as engine:
        context_id = engine.contexts.ingest(DOCUMENT).record.id

        def read(_: object) -> None:
            engine.contexts.delete(context_id)
            raise StorageError("the context's KV is no longer stored")

        core = mock.Mock(wraps=engine.contexts._core, read_prefix=read)
        with (
            mock.patch.object(engine.contexts, "_core", core),
            pytest.raises(ContextNotFoundError),
        ):
            engine.contexts.export_file(context_id, tmp_path / "c")


def test_one_of_two_callers_deletes_a_context(path: Path) -> None:
    with open_engine(path, None) as engine, ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            engine.contexts.ingest(DOCUMENT, name="doc")
            deletions = [threads.submit(engine.contexts.delete, "doc") for _ in range(2)]
            failures = [deletion.exception() for deletion in deletions]
            assert sorted(map(type, failures), key=str) == sorted(
                [ContextNotFoundError, type(None)], key=str
            )


def test_a_context_that_is_deleted_while_it_is_moved_is_not_found(path: Path) -> None:
    with open_engine(path, None) as engine:
        context_id = engine.contexts.ingest(DOCUMENT).record.id
        keeper = engine.contexts._keeper

        def move(*_: object) -> None:
            engine.contexts.delete(context_id)
            raise StorageError("the context's KV is not stored")

        with mock.patch.object(keeper, "move", move), pytest.raises(ContextNotFoundError):
            engine.contexts.move(context_id, "warm")


def test_what_ram_alone_cannot_hold_is_refused_before_it_is_computed(path: Path) -> None:
    with open_engine(path, None, kv_ram_bytes=1) as engine:
        with pytest.raises(ContextTooLargeError, match="--kv-ram"):
            engine.contexts.ingest(DOCUMENT * 20)
        [stats] = engine.stats().models
        assert stats.num_batch_tokens == 0


@pytest.mark.parametrize("architecture", ["gemma3", "mamba2"])
def test_moves_beside_deletions_of_contexts_with_the_same_document_find_the_context_or_do_not(
    tmp_path: Path, architecture: Architecture
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", architecture)
    end = time.monotonic() + 3
    failures: list[BaseException] = []

    def use(seed: int, contexts: ContextManager) -> None:
        chance = random.Random(seed)
        while time.monotonic() < end:
            known = [view.record.id for view in contexts.list()]
            actions: list[Callable[[], object]] = []
            if len(known) < 10:
                actions.append(lambda: contexts.ingest(chance.choice("ab") + DOCUMENT * 3))
            if known:
                one, tier = chance.choice(known), chance.choice(("hot", "warm", "cold"))
                actions += [lambda: contexts.move(one, tier)] * 3  # noqa: B023 called at once
                actions.append(lambda: contexts.delete(one))  # noqa: B023
            try:
                chance.choice(actions)()
            except ContextNotFoundError:
                pass
            except BaseException as error:
                failures.append(error)
                return

    with open_engine(path, tmp_path / "w") as engine:
        users = [threading.Thread(target=use, args=(i, engine.contexts)) for i in range(8)]
        for user in users:
            user.start()
        for user in users:
            user.join()
    assert failures == []
