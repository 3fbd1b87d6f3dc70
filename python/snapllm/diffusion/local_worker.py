"""An image model in the caller's own process: as a worker process has it, unguarded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from snapllm.diffusion.backend import ImageBackend
from snapllm.diffusion.load_failure import load_failure
from snapllm.diffusion.messages import Loaded, Preview, Step
from snapllm.diffusion.params import ImageRequest, Picture
from snapllm.errors import EngineClosedError, GenerationFailedError


class LocalWorker:
    """The methods of `WorkerProcess`, without the process.

    A crash of upstream's takes the whole program with it, and freed memory may stay with
    the process. It starts a little faster and needs no second interpreter.
    """

    def __init__(self, files: Mapping[str, str], num_threads: int, flash_attention: bool) -> None:
        self._options = (files, num_threads, flash_attention)
        self._backend: ImageBackend | None = None
        self._is_closed = False
        self._device_bytes = 0
        self.num_starts = 0
        self.pid: int | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it has the model."""
        return self._backend is not None

    def start(self) -> Loaded:
        """See `WorkerProcess.start`."""
        start = time.perf_counter()
        try:
            self._backend = ImageBackend(*self._options)
        except RuntimeError as error:
            raise load_failure(str(error), self._options[0]) from None
        self.num_starts += 1
        self._device_bytes = self._backend.device_bytes
        return Loaded((time.perf_counter() - start) * 1000, self._backend.upscale_factor)

    def generate(
        self,
        request: ImageRequest,
        on_step: Callable[[Step], None],
        on_preview: Callable[[Preview], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[list[Picture], float] | None:
        """See `WorkerProcess.generate`."""

        def step(done: int, num_steps: int, seconds_per_step: float) -> bool:
            on_step(Step(0, done, num_steps, seconds_per_step))
            return not (is_cancelled() or self._is_closed)

        backend = self._backend
        if backend is None:
            raise EngineClosedError("the image model is unloaded")
        if is_cancelled():
            return None
        start = time.perf_counter()
        try:
            pictures = backend.generate(
                request, step, lambda done, picture: on_preview(Preview(0, done, picture))
            )
        except RuntimeError as error:
            raise GenerationFailedError(f"the image failed: {error}") from None
        if pictures is None:
            return None
        self._device_bytes = backend.device_bytes
        return pictures, time.perf_counter() - start

    def cancel(self) -> None:
        """Nothing to do: a job asks at each step whether it is cancelled."""

    def gpu_bytes(self) -> int:
        """What the model holds of a device's memory."""
        return self._device_bytes

    def memory_bytes(self) -> int:
        """Of a device's memory; the machine's is not known apart from the rest of the process."""
        return self._device_bytes

    def release(self) -> bool:
        """False: the model stays in memory as long as it is loaded."""
        return False

    def close(self) -> None:
        """Stops a running job at its next step and lets the model go after it."""
        self._is_closed = True
        self._backend = None
