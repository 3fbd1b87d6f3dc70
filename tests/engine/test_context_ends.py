"""Contexts of an engine that is not there any more belong to another."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import snapllm
from snapllm._gate import Gate
from snapllm.contexts import ContextManager, ContextView
from snapllm.contexts.catalog import ContextCatalog
from snapllm.contexts.keeper import KvKeeper
from snapllm.contexts.record import ContextRecord
from snapllm.errors import EngineClosedError

DOCUMENT = "The vacation policy is 20 days of paid vacation. "

FORKING = """
import os, sys, time, snapllm
engine = snapllm.Engine(num_threads=1, workspace=sys.argv[2])
engine.load(sys.argv[1], "m")
contexts = engine.contexts
contexts.ingest("A document.", name="a")
contexts.ingest("Another.", name="b", ttl_seconds=1)
time.sleep(1.1)
pid = os.fork()
if pid == 0:
    uses = {
        "list": contexts.list,
        "get": lambda: contexts.get("a"),
        "delete": lambda: contexts.delete("a"),
        "fork": lambda: contexts.fork("a"),
        "append": lambda: contexts.append("a", "More."),
        "move": lambda: contexts.move("a", "cold"),
        "expire": contexts.remove_expired,
    }
    for name, use in uses.items():
        try:
            use()
        except snapllm.EngineClosedError:
            continue
        print(name, "was not refused", flush=True)
    engine.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(len(os.listdir(os.path.join(sys.argv[2], "contexts"))), "files", flush=True)
print([view.record.name for view in contexts.list()], flush=True)
engine.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_touches_none_of_its_parents_contexts(
    tmp_path: Path, llama_path: Path
) -> None:
    command = [sys.executable, "-c", FORKING, str(llama_path), str(tmp_path / "w")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines() == ["2 files", "['a']"], result.stderr


def test_a_closed_engine_touches_no_context(tmp_path: Path, llama_path: Path) -> None:
    engine = snapllm.Engine(num_threads=1, workspace=tmp_path)
    engine.load(llama_path, "m")
    context_id = engine.contexts.ingest(DOCUMENT, name="a").record.id
    engine.close()
    for use in (
        engine.contexts.list,
        engine.contexts.remove_expired,
        lambda: engine.contexts.get("a"),
        lambda: engine.contexts.delete("a"),
    ):
        with pytest.raises(EngineClosedError):
            use()
    assert (tmp_path / "contexts" / f"{context_id}.json").is_file()


def test_what_an_engines_end_waits_for_may_use_the_catalog_until_it_waits_no_longer(
    tmp_path: Path,
) -> None:
    gate = Gate()
    catalog = ContextCatalog(tmp_path, gate.check_not_shut)
    record = ContextRecord(
        id="a", name="a", model_id="m", content="", tokens=[], fingerprint="", kv_kind="",
        created_at=0.0,
    )  # fmt: skip
    with gate.working():
        closing = threading.Thread(target=gate.close, args=(0.2,))
        closing.start()
        with contextlib.suppress(EngineClosedError):
            while True:
                gate.check_open()
        catalog.put(record)
        closing.join()
        with pytest.raises(EngineClosedError):
            catalog.remove("a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


CHANGES: dict[str, Callable[[ContextManager, Path], object]] = {
    "ingest": lambda contexts, _: contexts.ingest("Another document.", "m", name="b"),
    "append": lambda contexts, _: contexts.append("a", "More."),
    "fork": lambda contexts, _: contexts.fork("a", name="b"),
    "import": lambda contexts, path: contexts.import_file(path, name="b"),
    "delete": lambda contexts, _: contexts.delete("a"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_on_disk_when_the_engine_ends_is_not_said_to_have_failed(
    change: str, tmp_path: Path, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = snapllm.Engine(num_threads=1, workspace=tmp_path / "w")
    engine.load(llama_path, "m")
    context_id = engine.contexts.ingest(DOCUMENT, name="a").record.id
    engine.contexts.export_file("a", tmp_path / "a.snapctx")

    def ending(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            result = method(*arguments)
            engine.close()
            return result

        return call

    for name in ("put", "replace", "remove"):
        monkeypatch.setattr(ContextCatalog, name, ending(getattr(ContextCatalog, name)))
    answer = CHANGES[change](engine.contexts, tmp_path / "a.snapctx")
    record = answer.record if isinstance(answer, ContextView) else answer
    monkeypatch.undo()
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "w") as again:
        found = {view.record.id: view for view in again.contexts.list()}
        if change == "delete":
            assert isinstance(record, ContextRecord)
            assert record.id == context_id
            assert found == {}
            return
        assert isinstance(answer, ContextView)
        assert found[answer.record.id].record == record
        assert found[answer.record.id].is_on_disk
        assert found[answer.record.id].disk_bytes == answer.disk_bytes > 0


def test_a_context_that_an_engine_without_a_workspace_takes_with_it_is_not_said_to_be_kept(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = snapllm.Engine(num_threads=1)
    engine.load(llama_path, "m")
    monkeypatch.setattr(KvKeeper, "make_hot", lambda *_: engine.close())
    with pytest.raises(EngineClosedError):
        engine.contexts.ingest(DOCUMENT)
