"""Loads of models whose files were replaced, with a core that only lists models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snapllm._loaded_files import LoadedFiles
from snapllm.errors import ModelFileReplacedError, ModelNotFoundError


class Core:
    """Has at most one model, `m`."""

    def __init__(self) -> None:
        self.info: Any = None

    def load(self, path: Path, mmproj_path: str = "", at: int = 1) -> None:
        self.info = SimpleNamespace(
            id="m",
            path=str(path),
            mmproj_path=mmproj_path,
            state="resident",
            load_ms=1.0,
            loaded_at_ms=at,
        )

    def model_info(self, model_id: str) -> Any:
        if self.info is None:
            raise ModelNotFoundError(model_id)
        return self.info


def test_a_model_that_came_back_with_its_projector_may_be_loaded_without_one(
    tmp_path: Path,
) -> None:
    path, projector = tmp_path / "m.gguf", str(tmp_path / "mmproj.gguf")
    for file in (path, Path(projector)):
        file.write_bytes(b"x")
    core: Any = Core()
    files = LoadedFiles(core)
    with files.loading("m", str(path), projector):
        core.load(path, projector)
    core.info.state = "evicted"
    with files.loading("m", str(path), ""):
        core.load(path, projector, at=2)
    for given in ("", projector):
        with files.loading("m", str(path), given):
            pass
    Path(projector).unlink()
    Path(projector).write_bytes(b"another one")
    with pytest.raises(ModelFileReplacedError), files.loading("m", str(path), ""):
        pass
