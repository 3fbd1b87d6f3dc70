"""A loaded image model: a queue, a thread, and a worker process behind it."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import Unpack

from snapllm._gate import Gate
from snapllm.diffusion.counts import ImageCounter
from snapllm.diffusion.info import ImageModelInfo
from snapllm.diffusion.job import (
    BatchProgress,
    ImageJob,
    ImageQueued,
    ImageResult,
    ImageStep,
    Listener,
    check_timeout,
)
from snapllm.diffusion.options import ImageModelOptions
from snapllm.diffusion.params import ImageOptions, ImageRequest, SeveralImagesOptions
from snapllm.diffusion.requests import make_request
from snapllm.diffusion.traits import ModelTraits
from snapllm.errors import (
    EngineClosedError,
    GenerationFailedError,
    InvalidRequestError,
    JobCancelled,
    OutOfMemoryError,
    QueueFullError,
    SnapLLMError,
)

if TYPE_CHECKING:
    from PIL import Image

    from snapllm.diffusion.local_worker import LocalWorker
    from snapllm.diffusion.worker_process import WorkerProcess

log = logging.getLogger("snapllm.diffusion")

MAX_ROOM_WAIT_S = 60.0
"""How long a request whose model has to come back lets busy models finish what they have."""
_PAUSE_S = 0.05


class Worker(Protocol):
    """What can be ended while it starts."""

    def close(self) -> None:
        """Ends it for good. Any thread."""


def _worker(
    files: Mapping[str, str], num_threads: int, options: ImageModelOptions
) -> WorkerProcess | LocalWorker:
    # Imported with the first image model: programs without one start faster.
    if options.isolated:
        from snapllm.diffusion.worker_process import WorkerProcess

        return WorkerProcess(files, num_threads, options.flash_attention)
    from snapllm.diffusion.local_worker import LocalWorker

    return LocalWorker(files, num_threads, options.flash_attention)


class ImageModel:
    """Makes images, one request at a time; any thread may ask.

    `Engine.load_diffusion` makes it.
    """

    def __init__(
        self,
        model_id: str,
        files: Mapping[str, str],
        file_bytes: int,
        options: ImageModelOptions,
        traits: ModelTraits,
        *,
        num_threads: int,
        keep_alive_s: float,
        on_memory: Callable[[int | None], None],
        on_worker: Callable[[Worker], None],
        is_room_coming: Callable[[], bool],
        gate: Gate,
    ) -> None:
        self.id = model_id
        self.options = options
        """What it was loaded with."""
        self._pinned, self._keep_alive_s = options.pinned, keep_alive_s
        self._files, self._file_bytes, self._traits = dict(files), file_bytes, traits
        self._num_threads, self._on_memory = num_threads, on_memory
        self._is_room_coming, self._gate = is_room_coming, gate
        self._worker = _worker(files, num_threads, options)
        try:
            on_worker(self._worker)
            loaded = self._worker.start()
            self._on_memory(self._worker.memory_bytes())
        except BaseException:
            self._worker.close()
            raise
        self._load_ms, self._upscale_factor = loaded.load_ms, loaded.upscale_factor
        self._loaded_at_ms = int(time.time() * 1000)
        self.used_at = time.monotonic()
        self._counter = ImageCounter()
        self._changed = threading.Condition()
        self._queue: deque[tuple[ImageJob, float]] = deque()
        self._running: ImageJob | None = None
        self._is_closed = self._is_evicted = self._is_evicting = False
        self._thread = threading.Thread(target=self._run, name=f"images {model_id}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<snapllm.ImageModel {self.id!r}>"

    @property
    def info(self) -> ImageModelInfo:
        """What the model is, as of now."""
        with self._changed:
            return ImageModelInfo(
                id=self.id,
                path=self._files.get("model") or self._files["diffusion_model"],
                files=self._files,
                file_bytes=self._file_bytes,
                memory_bytes=self._worker.memory_bytes(),
                gpu_bytes=self._worker.gpu_bytes(),
                load_ms=self._load_ms,
                loaded_at_ms=self._loaded_at_ms,
                num_threads=self._num_threads,
                upscale_factor=self._upscale_factor,
                num_waiting=len(self._queue),
                num_running=int(self._running is not None),
                num_starts=self._worker.num_starts,
                state="evicted" if self._is_evicted else "resident",
                pinned=self.pinned,
                counts=self._counter.read(),
            )

    @property
    def is_busy(self) -> bool:
        """Whether a request runs or waits."""
        with self._changed:
            return self._running is not None or bool(self._queue)

    @property
    def can_go(self) -> bool:
        """Whether it may be evicted once it is idle: the caller's own process frees no memory."""
        return self.options.isolated and not self._pinned

    @property
    def pinned(self) -> bool:
        """Exempt from eviction."""
        return self._pinned

    @pinned.setter
    def pinned(self, pinned: bool) -> None:
        with self._changed:
            self._pinned = pinned
            self._free_place()
            self._changed.notify()

    def _free_place(self) -> None:
        """Gives up the place of a worker that died while it was pinned. REQUIRES: the lock."""
        is_idle = self._running is None and not self._queue
        if self._is_evicted and not self._pinned and is_idle:
            with contextlib.suppress(SnapLLMError):
                self._on_memory(None)

    @property
    def keep_alive_s(self) -> float:
        """Seconds after which it is evicted where nobody uses it; 0 = never for that reason."""
        return self._keep_alive_s

    @keep_alive_s.setter
    def keep_alive_s(self, seconds: float) -> None:
        with self._changed:
            self._keep_alive_s = seconds
            self._changed.notify()

    @property
    def worker_pid(self) -> int | None:
        """The process id of its worker while that runs."""
        return self._worker.pid

    def generate_image(
        self,
        prompt: str,
        *,
        init_image: Any = None,
        mask: Any = None,
        loras: Mapping[str, float] | None = None,
        progress: bool | Callable[[ImageStep], None] | None = False,
        timeout_s: float | None = None,
        **options: Unpack[ImageOptions],
    ) -> Image.Image:
        """Makes one image and waits for it.

        Args:
            prompt: What to show, at most 4,000 characters; ``<lora:name:weight>`` adds a
                LoRA.
            init_image: An image to start from: a path, the bytes of a file, a uint8 array
                or a Pillow image. It is cut to the shape that is asked for.
            mask: Where `init_image` is painted over: white; black stays.
            loras: LoRA files of the model's folder by name, with their weights.
            progress: True draws a bar on a terminal; a function is called at each step.
            timeout_s: Seconds to wait before `TimeoutError`, which cancels the request.
            **options: ``negative_prompt``, ``width`` and ``height`` (multiples of 64 up to
                2048), ``num_steps`` (1 to 150), ``cfg_scale``, ``guidance``, ``seed`` (-1 =
                any), ``sampler``, ``scheduler``, ``strength`` (0 to 1), ``clip_skip``,
                ``upscale``; see `snapllm.diffusion.params.ImageRequest`.

        Returns:
            The image; its ``info`` has ``seed`` and ``parameters``.

        Raises:
            InvalidRequestError: An argument is wrong; nothing was made.
            QueueFullError: Too many requests wait already.
            GenerationFailedError: The model fails, or its worker died.
            TimeoutError: It was not done in time.
        """
        if "num_images" in options:
            raise InvalidRequestError(
                "num_images: generate_image makes one image, generate_images several",
                param="num_images",
            )
        result = self.generate_images(
            prompt,
            init_image=init_image,
            mask=mask,
            loras=loras,
            progress=progress,
            timeout_s=timeout_s,
            num_images=1,
            **options,
        )
        [image], [seed] = result.images, result.seeds
        image.info |= {"seed": seed, "parameters": result.parameters[0]}
        return image

    def generate_images(
        self,
        prompt: str,
        *,
        init_image: Any = None,
        mask: Any = None,
        loras: Mapping[str, float] | None = None,
        progress: bool | Callable[[ImageStep], None] | None = False,
        timeout_s: float | None = None,
        **options: Unpack[SeveralImagesOptions],
    ) -> ImageResult:
        """Makes ``num_images`` images and waits for them; see `generate_image`."""
        from snapllm.diffusion.progress import progress_listener

        check_timeout(timeout_s)
        request = self.request(prompt, init_image=init_image, mask=mask, loras=loras, **options)
        with progress_listener(progress) as listener:
            job = self.submit(request, listener)
            try:
                return job.result(timeout_s)
            except BaseException:
                job.cancel()
                raise

    def request(
        self,
        prompt: str,
        *,
        init_image: Any = None,
        mask: Any = None,
        loras: Mapping[str, float] | None = None,
        **options: Unpack[SeveralImagesOptions],
    ) -> ImageRequest:
        """Makes a request for `submit`; see `generate_image` for the arguments."""
        return make_request(
            prompt,
            options,
            init_image=init_image,
            mask=mask,
            loras=loras,
            lora_dir=self.options.lora_dir,
            traits=self._traits,
            upscale_factor=self._upscale_factor,
        )

    def submit(self, request: ImageRequest, listener: Listener | None = None) -> ImageJob:
        """Puts a request into the queue.

        Args:
            request: What `request` made.
            listener: See `ImageJob`.

        Raises:
            QueueFullError: Too many requests wait already.
            EngineClosedError: The model is unloaded, or the engine closed.
        """
        self._gate.check_open()
        job = ImageJob(f"img_{secrets.token_hex(12)}", self.id, request, listener, self._cancel)
        with self._changed:
            if self._is_closed:
                raise self._closed_error()
            if len(self._queue) >= self.options.max_queued:
                raise QueueFullError(
                    f"{len(self._queue)} requests are waiting for the image model {self.id}"
                )
            self._gate.enter()  # the engine's end waits for the job's
            job.future.add_done_callback(lambda _: self._gate.leave())
            self._counter.note(job)
            self._queue.append((job, time.monotonic()))
            self._changed.notify()
        return job

    def position(self, job: ImageJob) -> int:
        """How many jobs are before this one; 0 = it runs or is over."""
        with self._changed:
            waiting = [queued for queued, _ in self._queue]
            if job not in waiting:
                return 0
            return waiting.index(job) + (self._running is not None)

    def evict(self) -> bool:
        """Ends the worker of an idle model, until the next request; False where it must stay."""
        with self._changed:
            if self._is_evicting:
                self._changed.wait_for(lambda: not self._is_evicting)
                return self._is_evicted
            is_busy = self._running is not None or bool(self._queue)
            if is_busy or self.pinned or self._is_evicted or self._is_closed:
                return False
            self._is_evicting = True
        # Without the lock: the end of a process with gigabytes takes seconds. Whatever is asked
        # for meanwhile waits in the queue.
        is_free = False
        try:
            is_free = self._worker.release()
            if is_free:
                self._on_memory(None)
        finally:
            with self._changed:
                self._is_evicting, self._is_evicted = False, is_free
                self._changed.notify_all()
        return is_free

    def close(self) -> None:
        """Ends all jobs and the worker; its memory is free afterwards.

        A listener may call it too, whose own job ends when it returns.
        """
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            waiting = [job for job, _ in self._queue]
            self._queue.clear()
            self._changed.notify()
        for job in waiting:
            job.finish(self._closed_error())
        try:
            self._worker.close()
            if self._thread is not threading.current_thread():
                self._thread.join()
        finally:
            self._on_memory(None)

    def _closed_error(self) -> EngineClosedError:
        return EngineClosedError(f"the image model {self.id} was unloaded, or the engine closed")

    def _cancel(self, job: ImageJob) -> None:
        with self._changed:
            waiting = [queued for queued, _ in self._queue]
            behind = waiting[waiting.index(job) + 1 :] if job in waiting else []
            self._queue = deque(each for each in self._queue if each[0] is not job)
            if job is self._running:
                self._worker.cancel()  # inside the lock: later, it would stop the next job
        if job in waiting:
            job.finish(JobCancelled())
        self._tell_positions(behind)

    def _tell_positions(self, jobs: Iterable[ImageJob]) -> None:
        """Tells jobs that wait where they are now. Without the lock: a listener may ask anything
        of the model."""
        for job in jobs:
            if position := self.position(job):
                job.tell(ImageQueued(position))

    def _run(self) -> None:
        while True:
            try:
                if not self._run_next():
                    return
            except BaseException:  # of a callback, or of the budget: the next job must go on
                log.exception("an image job failed at its end")

    def _run_next(self) -> bool:
        """Waits for a job and makes it, or evicts the model that has none for long; False when the
        model is closed."""
        with self._changed:
            while self._is_evicting or not (
                self._queue or self._is_closed or self._idle_left_s() == 0
            ):
                self._changed.wait(None if self._is_evicting else self._idle_left_s())
            if self._is_closed:
                return False
            taken = self._queue.popleft() if self._queue else None
            if taken is not None:
                self._running, taken[0].state = taken[0], "running"
            behind = [queued for queued, _ in self._queue]
        if taken is None:
            self.evict()
            return True
        job, submitted = taken
        self._tell_positions(behind)
        outcome = self._make(job, time.monotonic() - submitted)
        try:
            self._charge_anew()
        finally:
            with self._changed:
                self._running = None
                self.used_at = time.monotonic()
                self._free_place()
            job.finish(outcome)
        return True

    def _charge_anew(self) -> None:
        """Charges what the worker has turned out to need; nothing where it has died, unless its
        place is kept for it."""
        if self._is_evicted or self._is_closed:
            return
        with self._changed:
            self._is_evicted = not self._worker.is_alive
        is_free = self._is_evicted and not self._pinned
        # The budget may be short of it; it has it already.
        with contextlib.suppress(SnapLLMError):
            self._on_memory(None if is_free else self._worker.memory_bytes())

    def _take_place(self, job: ImageJob) -> None:
        """Charges an evicted model anew; where others that can go are busy, waits for their end.

        Raises:
            OutOfMemoryError: There is no room, and none is to come, or none came in time.
            JobCancelled: The job was cancelled before there was.
        """
        deadline = time.monotonic() + MAX_ROOM_WAIT_S
        while True:
            is_coming = self._is_room_coming()  # asked before: what ends in between makes room
            try:
                self._on_memory(0)
                return
            except OutOfMemoryError:
                if job.is_cancelled:
                    raise JobCancelled from None
                if not is_coming or self._is_closed or time.monotonic() >= deadline:
                    raise
            time.sleep(_PAUSE_S)

    def _idle_left_s(self) -> float | None:
        """Seconds after which the idle model is to be evicted; None = it is not."""
        if not (self.can_go and not self._is_evicted and self._keep_alive_s):
            return None
        return max(0.0, self.used_at + self._keep_alive_s - time.monotonic())

    def _make(self, job: ImageJob, queue_seconds: float) -> ImageResult | Exception:
        if self._is_closed:
            return self._closed_error()
        try:
            if self._is_evicted:
                self._take_place(job)
                self._is_evicted = False
            batch = BatchProgress(job.request.num_images)
            made = self._worker.generate(
                job.request,
                lambda m: job.tell(batch.step(m.step, m.num_steps, m.seconds_per_step)),
                lambda m: job.tell(batch.preview(m.step, m.picture)),
                lambda: job.is_cancelled,
            )
        except SnapLLMError as error:
            return self._closed_error() if self._is_closed else error
        except BaseException as error:  # whatever it is: the next job must go on
            log.exception("an image job failed")
            return error if isinstance(error, Exception) else GenerationFailedError(repr(error))
        if made is None:
            return JobCancelled() if job.is_cancelled else self._closed_error()
        pictures, seconds = made
        return ImageResult(
            model=self.id,
            request=job.request,
            pictures=tuple(pictures),
            seconds=seconds,
            queue_seconds=queue_seconds,
        )
