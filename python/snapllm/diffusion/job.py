"""An image request from its submission to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from snapllm._checks import convert, plain_number
from snapllm.diffusion.parameters import parameters_text
from snapllm.diffusion.params import ImageRequest, Picture
from snapllm.diffusion.pictures import to_pillow
from snapllm.errors import JobCancelled

if TYPE_CHECKING:
    from PIL import Image

JobState: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]


class ImageStep(msgspec.Struct, frozen=True):
    """Some steps of a job are done."""

    step: int
    """Of the image that is being made; each one of a batch begins at 0."""
    num_steps: int
    seconds_per_step: float
    image_number: int = 1
    """Which image of the batch it is, from 1 on."""
    num_images: int = 1
    """How many the batch has."""


class ImagePreview(msgspec.Struct, frozen=True):
    """A rough picture of what is there by now."""

    step: int
    picture: Picture
    image_number: int = 1
    """As those of `ImageStep`."""
    num_images: int = 1


class BatchProgress:
    """Tells which image of a batch the steps belong to; upstream counts each one's from 0.

    Args:
        num_images: How many the batch has.
    """

    def __init__(self, num_images: int) -> None:
        self._num_images, self._number, self._last_step = num_images, 1, -1

    def step(self, step: int, num_steps: int, seconds_per_step: float) -> ImageStep:
        """The event for steps that are done. REQUIRES: each one's are told in their order."""
        if step < self._last_step:  # samplers of second order tell the 0 twice
            self._number = min(self._number + 1, self._num_images)
        self._last_step = step
        return ImageStep(step, num_steps, seconds_per_step, self._number, self._num_images)

    def preview(self, step: int, picture: Picture) -> ImagePreview:
        """The event for a preview of the image whose step was told last."""
        return ImagePreview(step, picture, self._number, self._num_images)


class ImageQueued(msgspec.Struct, frozen=True):
    """The job has moved up in the queue; so many are before it, one that runs included."""

    position: int


class ImageResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of a job."""

    model: str
    request: ImageRequest
    pictures: tuple[Picture, ...]
    seconds: float
    """Spent on making them."""
    queue_seconds: float
    """Spent waiting before."""

    @property
    def images(self) -> list[Image.Image]:
        """The pictures as Pillow has them."""
        return [to_pillow(picture) for picture in self.pictures]

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture."""
        return [self.request.seed + i for i in range(len(self.pictures))]

    @property
    def parameters(self) -> list[str]:
        """What each picture was made with; see `parameters_text`."""
        factor = self.pictures[0].width // self.request.width
        return [parameters_text(self.request, seed, self.model, factor) for seed in self.seeds]


_Timeout: TypeAlias = Annotated[float, Meta(ge=0, le=threading.TIMEOUT_MAX)]


def check_timeout(timeout_s: object) -> float | None:
    """Seconds to wait; None = for ever.

    Raises:
        InvalidRequestError: They are none.
    """
    return None if timeout_s is None else convert(plain_number(timeout_s), _Timeout, "timeout_s")


JobEvent: TypeAlias = ImageQueued | ImageStep | ImagePreview | ImageResult | Exception
Listener: TypeAlias = Callable[[JobEvent], None]


class ImageJob:
    """A submitted request. Its result, or why there is none, comes through `future`.

    Args:
        job_id: Unique among all jobs.
        model_id: Who makes it.
        request: What to make.
        listener: Called with each event, on a thread of the model's, or on one that cancels a
            job of it; the last one is the result, or the exception that the future raises
            too. Where it raises itself it is not called again, and the job ends with its
            exception.
        on_cancel: Called once, by `cancel`.
    """

    def __init__(
        self,
        job_id: str,
        model_id: str,
        request: ImageRequest,
        listener: Listener | None,
        on_cancel: Callable[[ImageJob], None],
    ) -> None:
        self.id, self.model_id, self.request = job_id, model_id, request
        self.future: Future[ImageResult] = Future()
        # Only the model ends it: `Future.cancel` would take the place of the result.
        self.future.set_running_or_notify_cancel()
        self.state: JobState = "queued"
        self.last_step = ImageStep(0, request.num_steps, 0.0, 1, request.num_images)
        self._told_position: int | None = None
        self._listener, self._on_cancel = listener, on_cancel
        self._cancelled = threading.Event()
        self._failure: BaseException | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Takes the job out of the queue, or stops it at its next step."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            self._on_cancel(self)

    def result(self, timeout_s: float | None = None) -> ImageResult:
        """Waits for the result.

        Raises:
            JobCancelled: The job was cancelled.
            GenerationFailedError: It failed.
            EngineClosedError: Its model was unloaded, or the engine closed.
            TimeoutError: The time is over; the job goes on.
            InvalidRequestError: The time is none.
        """
        timeout_s = check_timeout(timeout_s)
        # The future's own TimeoutError is Python's from 3.11 on only.
        if not wait([self.future], timeout_s).done:
            raise TimeoutError(f"the image was not done within {timeout_s:g} s")
        return self.future.result()

    def tell(self, event: JobEvent) -> None:
        """Passes an event on; for the model."""
        if isinstance(event, ImageStep):
            self.last_step = event
        if isinstance(event, ImageQueued) and not self._moves_up(event.position):
            return
        if self._listener is None or self._failure is not None:
            return
        try:
            self._listener(event)
        except BaseException as error:  # the caller's, SystemExit too: the model must go on
            self._failure = error
            self.cancel()

    def _moves_up(self, position: int) -> bool:
        # Jobs before this one are begun on the model's thread and cancelled on any: what is
        # told too late is left out.
        told = self._told_position
        if self.state != "queued" or (told is not None and position >= told):
            return False
        self._told_position = position
        return True

    def finish(self, outcome: ImageResult | Exception) -> None:
        """Ends the job; for the model."""
        ending = self._failure or outcome
        if isinstance(ending, ImageResult):
            self.state = "done"
            self.future.set_result(ending)
        else:
            self.state = "cancelled" if isinstance(ending, JobCancelled) else "failed"
            self.future.set_exception(ending)
        self.tell(outcome)
