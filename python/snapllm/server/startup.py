"""The models that a server starts with and still has to load, and the wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from snapllm.errors import EngineClosedError
from snapllm.protocol.native_listing import ComingModel


class Startup:
    """Which models are still to be loaded, in their order. Event loop only."""

    def __init__(self) -> None:
        self._models: dict[str, ComingModel] = {}
        self._changed = asyncio.Event()
        self._is_given_up = False

    @property
    def models(self) -> list[ComingModel]:
        """Those that are still to be loaded."""
        return list(self._models.values())

    def announce(self, models: Iterable[ComingModel]) -> None:
        """Says which models are going to be loaded, in this order."""
        self._models = {model.id: model for model in models}

    def settle(self, model_id: str) -> None:
        """Says that a model was loaded."""
        del self._models[model_id]
        self._wake()

    def give_up(self) -> None:
        """Says that those that are left will not be loaded, since the server ends."""
        self._is_given_up = True
        self._wake()

    async def ready(self, name: str) -> None:
        """Waits until a model was loaded, if it is to be loaded at all.

        Args:
            name: The model, or ``model@context``.

        Raises:
            EngineClosedError: The server ends instead.
        """
        model_id = model_of(name, self._models)
        await self._until(lambda: model_id not in self._models)

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
        await self._until(lambda: is_there() or not any(map(fits, self.models)))

    async def _until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            if self._is_given_up:
                raise EngineClosedError("the server is shutting down")
            await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def model_of(name: str, model_ids: Iterable[str]) -> str | None:
    """The one of the models that is meant by ``model`` or ``model@context``."""
    fitting = (each for each in model_ids if name == each or name.startswith(f"{each}@"))
    return max(fitting, key=len, default=None)
