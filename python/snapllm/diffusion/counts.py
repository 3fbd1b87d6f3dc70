"""What became of an image model's requests."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import msgspec

from snapllm.diffusion.job import ImageJob, ImageResult
from snapllm.errors import JobCancelled


class ImageCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the model was loaded."""

    num_requests: int = 0
    """Requests accepted."""
    num_finished: int = 0
    """Requests that ended, however."""
    num_cancelled: int = 0
    num_failed: int = 0
    """Requests that ended in an error."""
    num_images: int = 0
    """Images made."""


class ImageCounter:
    """Counts a model's jobs. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = ImageCounts()

    def read(self) -> ImageCounts:
        """The counts as of now."""
        with self._lock:
            return self._counts

    def note(self, job: ImageJob) -> None:
        """Counts a job that was accepted, and its end."""
        self._add(num_requests=1)
        job.future.add_done_callback(self._note_end)

    def _note_end(self, future: Future[ImageResult]) -> None:
        error = future.exception()
        if error is None:
            self._add(num_finished=1, num_images=len(future.result().pictures))
        elif isinstance(error, JobCancelled):
            self._add(num_finished=1, num_cancelled=1)
        else:
            self._add(num_finished=1, num_failed=1)

    def _add(self, **more: int) -> None:
        with self._lock:
            sums = {name: getattr(self._counts, name) + number for name, number in more.items()}
            self._counts = msgspec.structs.replace(self._counts, **sums)
