"""The models that are still to be loaded, and the wait for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from snapllm._parts import part_name
from snapllm.diffusion.weights_file import is_image_file
from snapllm.errors import EngineClosedError
from snapllm.protocol.native_listing import ComingModel


class ComingModels:
    """Which models are still to be loaded, in their order. Event loop only."""

    def __init__(self) -> None:
        self._loads: list[ComingModel] = []
        self._changed = asyncio.Event()
        self._is_given_up = False

    @property
    def models(self) -> list[ComingModel]:
        """Those that are still to be loaded: each once, however many loads of it there are."""
        first: dict[str, ComingModel] = {}
        for model in self._loads:
            first.setdefault(model.id, model)
        return list(first.values())

    def announce(self, models: Iterable[ComingModel]) -> None:
        """Says which models are going to be loaded, in this order."""
        self._loads = list(models)

    def settle(self, model_id: str) -> None:
        """Says that a model was loaded."""
        self._loads = [model for model in self._loads if model.id != model_id]
        self._wake()

    @contextlib.contextmanager
    def loading(self, model: ComingModel) -> Iterator[None]:
        """Has a model among those to come until its load ends, well or not."""
        self._loads.append(model)
        try:
            yield
        finally:
            self._loads.remove(model)
            self._wake()

    def give_up(self) -> None:
        """Says that those that are left will not be loaded, since the server ends."""
        self._is_given_up = True
        self._wake()

    async def ready(self, name: str) -> None:
        """Waits until a model was loaded, or cannot be, if it is to be loaded at all.

        Args:
            name: The model, or ``model@context``.

        Raises:
            EngineClosedError: The server ends instead.
        """
        model_id = model_of(name, [model.id for model in self._loads])
        await self._until(lambda: all(model.id != model_id for model in self._loads))

    async def first(
        self, is_there: Callable[[], bool], fits: Callable[[ComingModel], bool]
    ) -> None:
        """Waits until there is a model of a kind, or none of the kind is left to come.

        Args:
            is_there: Whether there is one.
            fits: Whether a model that is still to be loaded is of the kind.

        Raises:
            EngineClosedError: The server ends instead.
        """
        await self._until(lambda: not any(map(fits, self._loads)) or is_there())

    async def _until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            if self._is_given_up:
                raise EngineClosedError("the server is shutting down")
            await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _parts_of(path: Path) -> Sequence[Path]:
    """A model's files: of one that was split, all that are there."""
    first = part_name(path.stem)
    if not first.is_part:
        return [path]
    names = (f"{first.of(i + 1)}{path.suffix}" for i in range(first.num_parts))
    return [part for part in map(path.with_name, names) if part.exists()]


def model_of(name: str, model_ids: Iterable[str]) -> str | None:
    """The one of the models that is meant by ``model`` or ``model@context``."""
    fitting = (each for each in model_ids if name == each or name.startswith(f"{each}@"))
    return max(fitting, key=len, default=None)


def coming_model(
    model_id: str,
    path: Path,
    *,
    model_type: Literal["auto", "llm", "vision", "diffusion"] = "auto",
    has_projector: bool = False,
    has_parts: bool = False,
) -> ComingModel:
    """A model that is to be loaded, as far as its options and a look at its file tell.

    Args:
        model_id: Its id.
        path: Its file.
        model_type: What it is said to be.
        has_projector: Whether it comes with the projector of a model that sees.
        has_parts: Whether it comes with further files of an image model.
    """
    if model_type == "auto":
        if has_projector:
            model_type = "vision"
        else:
            model_type = "diffusion" if has_parts or is_image_file(path) else "llm"
    try:
        file_bytes = sum(part.stat().st_size for part in _parts_of(path))
    except (OSError, ValueError):  # its load says so
        file_bytes = 0
    return ComingModel(id=model_id, type=model_type, file_path=str(path), file_bytes=file_bytes)
