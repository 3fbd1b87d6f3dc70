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
    num_steps: int
    seconds_per_step: float


class ImagePreview(msgspec.Struct, frozen=True):
    """A rough picture of what is there by now."""

    step: int
    picture: Picture


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
        listener: Called with each event, on a thread of the model's; the last one is the
            result, or the exception that the future raises too. Where it raises itself it is
            not called again, and the job ends with its exception.
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
        self.last_step = ImageStep(0, request.num_steps, 0.0)
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
        if self._listener is None or self._failure is not None:
            return
        try:
            self._listener(event)
        except BaseException as error:  # the caller's, SystemExit too: the model must go on
            self._failure = error
            self.cancel()

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
