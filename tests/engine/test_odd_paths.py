"""Names of files and folders that are no UTF-8."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import snapllm


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
