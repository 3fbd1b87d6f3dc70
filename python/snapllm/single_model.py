"""One model, and an engine for it alone."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike

from typing_extensions import Unpack

from snapllm._lifetime import ClosedAtExit
from snapllm.engine import Engine
from snapllm.model import Model
from snapllm.params import LoadOptions


class SingleModel(Model, ClosedAtExit):
    """A model with an engine of its own, which ends with it. A context manager."""

    def __init__(self, engine: Engine, model: Model) -> None:
        super().__init__(engine.runner, model.id)
        self._engine = engine

    def close(self, drain_timeout_s: float = 0.0) -> None:
        """Ends its engine and frees all memory; see `Engine.close`."""
        self._engine.close(drain_timeout_s)


def load(path: str | PathLike[str], **options: Unpack[LoadOptions]) -> SingleModel:
    """Loads one model in an engine of its own; see `Engine.load`."""
    return _single(lambda engine: engine.load(path, **options))


def load_demo(**options: Unpack[LoadOptions]) -> SingleModel:
    """Loads the demo model in an engine of its own; see `Engine.load_demo`."""
    return _single(lambda engine: engine.load_demo(**options))


def _single(load_into: Callable[[Engine], Model]) -> SingleModel:
    engine = Engine()
    try:
        return SingleModel(engine, load_into(engine))
    except BaseException:
        engine.close()
        raise
