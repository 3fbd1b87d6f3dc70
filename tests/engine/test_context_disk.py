"""Contexts on a disk that fails for a while."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snapllm

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
