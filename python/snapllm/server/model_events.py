"""One line in the log for whatever becomes of a model."""

from __future__ import annotations

import logging

from aiohttp import web

from snapllm import _core
from snapllm.diffusion import ImageModelInfo
from snapllm.engine import Engine
from snapllm.server.log_lines import quoted

log = logging.getLogger("snapllm.models")

_EVICTED, _RETURNED = "evicted %s from memory", "%s is back in memory"


def log_loaded(info: _core.ModelInfo | ImageModelInfo) -> None:
    """Says that a model was loaded."""
    if isinstance(info, ImageModelInfo):
        log.info("loaded image model %s in %.0f ms", quoted(info.id), info.load_ms)
        return
    log.info(
        "loaded %s (%s %s) in %.0f ms: context %d, %d threads",
        quoted(info.id),
        info.architecture,
        info.quantization,
        info.load_ms,
        info.context_size,
        info.num_threads,
    )


def log_unloaded(model_id: str) -> None:
    """Says that a model was unloaded."""
    log.info("unloaded %s", quoted(model_id))


def log_switched(model_id: str) -> None:
    """Says that a model became the active one."""
    log.info("switched to %s", quoted(model_id))


class ResidencyLog:
    """Says which models were evicted or came back since it last looked.

    The engine does both by itself.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last_number = 0
        self._image_states: dict[str, str] = {}

    def look(self) -> None:
        """Writes a line for each eviction and each return."""
        self._look_at_texts()
        self._look_at_images()

    def _look_at_texts(self) -> None:
        for event in self._engine.runner.core.residency_events(self._last_number):
            log.info(_RETURNED if event.has_returned else _EVICTED, quoted(event.model_id))
            self._last_number = event.number

    def _look_at_images(self) -> None:
        states = {model.id: str(model.info.state) for model in self._engine.image_models()}
        for model_id, state in states.items():
            if state != self._image_states.get(model_id, "resident"):
                log.info(_RETURNED if state == "resident" else _EVICTED, quoted(model_id))
        self._image_states = states


RESIDENCY_LOG: web.AppKey[ResidencyLog] = web.AppKey("residency_log", ResidencyLog)
