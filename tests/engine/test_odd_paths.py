"""Names of files and folders that are no UTF-8."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

import snapllm
from snapllm._requests import chat_request


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    return tmp_path / os.fsdecode(b"x\xff")


def test_a_workspace_may_have_any_name(odd: Path, llama_path: Path) -> None:
    for is_first in (True, False):
        with snapllm.Engine(num_threads=1, workspace=odd) as engine:
            engine.load(llama_path, "m")
            if is_first:
                engine.contexts.ingest("The badge color is green.", name="doc")
                with pytest.raises(snapllm.InvalidRequestError, match="in use"):
                    snapllm.Engine(workspace=odd)
            assert engine.contexts.get("doc").is_on_disk
    assert {path.name for path in odd.iterdir()} >= {"kv", "contexts"}


def test_a_model_of_another_name_is_refused(
    engine: snapllm.Engine, odd: Path, llama_path: Path
) -> None:
    shutil.copy(llama_path, odd)
    for load, arguments, param in (
        (engine.load, {"path": odd}, "path"),
        (engine.load, {"path": llama_path, "model_id": "m\udcff"}, "model_id"),
        (engine.load, {"path": llama_path, "model_id": "m", "mmproj_path": odd}, "mmproj_path"),
        (engine.load_diffusion, {"path": odd}, "path"),
        (engine.load_diffusion, {"path": llama_path, "model_id": "v", "vae": odd}, "vae"),
    ):
        with pytest.raises(snapllm.InvalidRequestError) as caught:
            load(**arguments)  # type: ignore[operator]
        assert caught.value.param == param


def test_a_workspace_stays_where_it_was_when_the_program_goes_elsewhere(
    tmp_path: Path, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(llama_path, tmp_path / "m.gguf")
    monkeypatch.chdir(tmp_path)
    with snapllm.Engine(num_threads=1, workspace="kept") as engine:
        monkeypatch.chdir(elsewhere)
        monkeypatch.chdir(tmp_path)
        model = engine.load("m.gguf", "m", keep_alive_s=0.05)
        assert model.info.path == str(tmp_path / "m.gguf")
        monkeypatch.chdir(elsewhere)
        engine.contexts.ingest("The badge color is green.", name="doc")
        until = time.monotonic() + 20
        while model.info.state != "evicted" and time.monotonic() < until:
            time.sleep(0.02)
        assert model.info.state == "evicted"
        assert model.chat("Hello", max_tokens=1).usage.num_generated_tokens == 1
    assert not list(elsewhere.iterdir())
    with snapllm.Engine(num_threads=1, workspace=tmp_path / "kept") as engine:
        engine.load(tmp_path / "m.gguf", "m")
        assert engine.contexts.get("doc").is_on_disk


def test_a_path_with_a_nul_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(snapllm.InvalidRequestError, match="NUL") as error:
        snapllm.Engine(workspace=f"{tmp_path}/dir\0x")
    assert error.value.param == "workspace"
    assert not list(tmp_path.iterdir())


def test_a_picture_is_found_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = chat_request("m", "What is it?", {"images": ["a.png", Path("b.png")]})
    parts = request.messages[0].content
    assert [part.source for part in parts[:2]] == [  # type: ignore[index, union-attr]
        str(tmp_path / "a.png"),
        str(tmp_path / "b.png"),
    ]
