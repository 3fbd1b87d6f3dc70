"""Contexts on a disk that fails for a while."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snapllm
from snapllm.contexts.record import ContextRecord, read_records, write_record

DOCUMENT = "The vacation policy is 20 days of paid vacation. "


def failing(number: int, *, for_suffix: str) -> Callable[..., Any]:
    """A method of `Path` that fails for the files of a suffix only."""

    def fail(path: Path, *_: Any, **__: Any) -> Any:
        if path.suffix == for_suffix:
            raise OSError(number, os.strerror(number), str(path))
        return None

    return fail


@pytest.fixture
def engine(tmp_path: Path, llama_path: Path) -> Any:
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        engine.load(llama_path, "m")
        yield engine


def names(engine: snapllm.Engine) -> list[str]:
    return [view.record.name for view in engine.contexts.list()]


def test_a_context_that_cannot_be_removed_from_the_disk_is_there_as_before(
    engine: snapllm.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.contexts.ingest(DOCUMENT, name="a")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing(errno.EROFS, for_suffix=".json"))
        with pytest.raises(snapllm.StorageError, match=r"cannot remove .*Read-only"):
            engine.contexts.delete("a")
    assert names(engine) == ["a"] and engine.contexts.get("a").tier == "hot"
    engine.contexts.delete("a")
    assert names(engine) == [] and not list((tmp_path / "contexts").iterdir())


def test_contexts_end_though_their_folder_is_not_there(
    engine: snapllm.Engine, tmp_path: Path
) -> None:
    engine.contexts.ingest(DOCUMENT, name="a")
    engine.contexts.ingest(DOCUMENT, name="over", ttl_seconds=1)
    shutil.rmtree(tmp_path / "contexts")
    time.sleep(1.1)
    assert engine.contexts.remove_expired() == 1
    engine.contexts.delete("a")
    assert names(engine) == []
    engine.contexts.ingest(DOCUMENT, name="next")
    assert len(list((tmp_path / "contexts").iterdir())) == 1


def test_one_that_cannot_be_removed_keeps_no_other_from_expiring(
    engine: snapllm.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = engine.contexts.ingest(DOCUMENT, name="stuck", ttl_seconds=1).record
    engine.contexts.ingest(DOCUMENT, name="over", ttl_seconds=1)
    time.sleep(1.1)
    unlink = Path.unlink

    def fail(path: Path, missing_ok: bool = False) -> None:
        if path.stem == stuck.id:
            raise OSError(errno.EIO, "Input/output error", str(path))
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.raises(snapllm.StorageError, match="cannot remove"):
            engine.contexts.remove_expired()
        assert names(engine) == []
        engine.contexts.ingest(DOCUMENT, name="next")
    assert len(list((tmp_path / "contexts").iterdir())) == 2
    assert engine.contexts.remove_expired() == 1
    assert names(engine) == ["next"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_context_whose_file_cannot_be_read_now_is_there_after_the_next_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    record = ContextRecord(
        id="ctx_a",
        name="a",
        model_id="m",
        content="x",
        tokens=[1],
        fingerprint="0" * 32,
        kv_kind="blocks",
        created_at=time.time(),
    )
    write_record(tmp_path, record)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Path, "read_bytes", failing(number, for_suffix=".json"))
        assert read_records(tmp_path) == ([], 0)
    assert os.strerror(number) in caplog.text and "ctx_a.json" in caplog.text
    assert read_records(tmp_path) == ([record], 0)


def test_pipes_in_the_place_of_files_keep_no_engine_from_starting(
    tmp_path: Path, llama_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "contexts").mkdir()
    for name in ("contexts/ctx_a.json", "chat_templates.txt", "calibration.txt"):
        os.mkfifo(tmp_path / name)
    with (
        caplog.at_level(logging.WARNING),
        snapllm.Engine(num_threads=2, workspace=tmp_path) as engine,
    ):
        engine.load(llama_path, "m", context_size=512)
        assert engine.contexts.ingest("A short document.", "m").is_on_disk
    assert "ctx_a.json is not there: cannot read it: it is no regular file" in caplog.text


def test_a_folder_that_cannot_be_written_does_not_keep_an_engine_from_starting(
    tmp_path: Path,
    llama_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "contexts"
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        engine.load(llama_path, "m")
        engine.contexts.ingest(DOCUMENT, name="a")
    (folder / "ctx_b.json").write_text("{}")
    (folder / "ctx_c.tmp").touch()
    monkeypatch.setattr(Path, "replace", failing(errno.EROFS, for_suffix=".json"))
    monkeypatch.setattr(Path, "unlink", failing(errno.EROFS, for_suffix=".tmp"))
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        assert names(engine) == ["a"]
        assert engine.contexts.num_damaged == 1
    assert "cannot be renamed" in caplog.text


def test_files_on_their_way_lie_in_the_workspace_and_what_a_crash_left_is_removed(
    tmp_path: Path,
) -> None:
    left = tmp_path / "contexts" / "transfers" / "left"
    left.mkdir(parents=True)
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        assert not left.exists()
        with engine.contexts.transfers.make() as folder:
            assert Path(folder).parent == left.parent
        assert not Path(folder).exists()
    with snapllm.Engine(num_threads=1) as engine, engine.contexts.transfers.make() as folder:
        assert Path(folder).parent == Path(tempfile.gettempdir())
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        left.parent.touch()
        with pytest.raises(snapllm.StorageError, match="File exists"):
            engine.contexts.transfers.make()


def test_a_workspace_that_cannot_be_made_says_why() -> None:
    with pytest.raises(snapllm.StorageError, match=r"cannot make /proc/nowhere: ") as error:
        snapllm.Engine(workspace="/proc/nowhere")
    assert "lock" not in str(error.value)


def test_files_of_a_workspace_are_read_by_their_owner_only(
    tmp_path: Path, llama_path: Path
) -> None:
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "w") as engine:
        engine.load(llama_path, "m")
        engine.contexts.ingest("The key is under the mat. " * 20, "m", name="secret")
    files = [path for path in (tmp_path / "w").rglob("*") if path.is_file()]
    assert {".json", ".kv"} <= {path.suffix for path in files}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_on_a_full_disk_what_is_no_contexts_makes_way_for_the_record_of_one(
    tmp_path: Path, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        engine.load(llama_path, "m")
        engine.contexts.ingest(DOCUMENT * 6, name="a")
        for number in range(3):
            engine.model().chat(f"{number} {DOCUMENT * 6}", max_tokens=1)
    # Its end has written all of it.

    def num_kv_bytes() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "kv").glob("*/*.kv"))

    most = num_kv_bytes() - 1

    def sync(_: int) -> None:
        if num_kv_bytes() > most:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with snapllm.Engine(num_threads=1, workspace=tmp_path) as engine:
        engine.load(llama_path, "m")
        monkeypatch.setattr(os, "fsync", sync)
        engine.contexts.fork("a", name="b")
        assert names(engine) == ["a", "b"]
        most = 0
        with pytest.raises(snapllm.StorageError, match="No space left"):
            engine.contexts.fork("a", name="c")
        assert names(engine) == ["a", "b"]
        assert [view.is_on_disk for view in engine.contexts.list()] == [True, True]
