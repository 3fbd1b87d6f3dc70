"""Which files the loaded models are of: a path may come to mean another one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from snapllm import _core
from snapllm._parts import part_name
from snapllm.errors import ModelFileReplacedError, ModelNotFoundError

Identity: TypeAlias = tuple[tuple[int, int, int, int], ...]
"""Of each of a model's files the device, inode, size and time of the last change."""


def identity_of(path: str, mmproj_path: str) -> Identity | None:
    """What the files of a model are now, all parts and the projector; None = they cannot be seen.

    Args:
        path: The model's file; of one that was split, the first part.
        mmproj_path: The projector's; "" = none.
    """
    model = Path(path)
    name = part_name(model.stem)
    files = [model]
    if name.is_part:
        numbers = range(1, name.num_parts + 1)
        files = [model.with_name(name.of(number) + model.suffix) for number in numbers]
    if mmproj_path:
        files.append(Path(mmproj_path))
    found = []
    with contextlib.suppress(OSError, ValueError):
        for file in files:
            status = file.stat()
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found) if len(found) == len(files) else None


class _Loaded(NamedTuple):
    """A model's load, or its last return, and what its files were then."""

    load: tuple[float, int]
    identity: Identity | None


class LoadedFiles:
    """Refuses to load a model again whose file is another by now: it would go on with the old one.
    One that was written to is no other: the core loads such a model anew. Any thread may use it."""

    def __init__(self, core: _core.Engine) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._loaded: dict[str, _Loaded] = {}

    @contextlib.contextmanager
    def loading(self, model_id: str, path: str, mmproj_path: str) -> Iterator[None]:
        """Checks a load before the block, which loads the model, and notes after it what the model
        is of.

        Raises:
            ModelFileReplacedError: The model is in memory, and its file is another one now.
        """
        self._check(model_id, path)
        # A load may leave the projector out of a model that comes back with its own.
        known = self._info(model_id)
        identity = identity_of(*((known.path, known.mmproj_path) if known else (path, mmproj_path)))
        yield
        if (info := self._info(model_id)) is not None:
            self._note(info, identity)

    def _info(self, model_id: str) -> _core.ModelInfo | None:
        with contextlib.suppress(ModelNotFoundError):
            return self._core.model_info(model_id)
        return None

    def _check(self, model_id: str, path: str) -> None:
        info, loaded = self._info(model_id), self._loaded.get(model_id)
        if info is None or info.state != "resident" or loaded is None:
            return  # it is loaded from what is there now
        now = identity_of(info.path, info.mmproj_path)
        if loaded.load != _load_of(info) or now is None or loaded.identity is None:
            return
        num_mapped = len(now) - bool(info.mmproj_path)
        is_same = _files_of(now, num_mapped) == _files_of(loaded.identity, num_mapped)
        if is_same or not _is_same_file(path, info.path):
            return
        raise ModelFileReplacedError(
            f"the file of model {model_id} was replaced since it was loaded, and the model goes on "
            "with the old one: unload it first",
            param="model_id",
        )

    def _note(self, info: _core.ModelInfo, identity: Identity | None) -> None:
        """What came back by itself after an eviction is taken for what is there now."""
        load = _load_of(info)
        with self._lock:
            before = self._loaded.get(info.id)
            if before is None or before.load != load:
                self._loaded[info.id] = _Loaded(load, identity)


def _files_of(identity: Identity, num_mapped: int) -> tuple[tuple[int, ...], ...]:
    """Which files these are. The core holds those that it has mapped open, so that no other gets
    their inodes; of the projector it has a copy."""
    return tuple(file[:2] if i < num_mapped else file for i, file in enumerate(identity))


def _load_of(info: _core.ModelInfo) -> tuple[float, int]:
    return info.load_ms, info.loaded_at_ms


def _is_same_file(path: str, other: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return Path(path).samefile(other)
    return False
