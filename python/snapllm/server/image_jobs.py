"""Image jobs as the server sees them: their events on the loop, and finding them again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator

from snapllm.diffusion import ImageJob, ImageModel, ImageRequest
from snapllm.diffusion.job import JobEvent

MAX_KEPT = 256


class ImageJobs:
    """The jobs that wait or run, and the last of those that are over. Event loop only."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, tuple[ImageJob, ImageModel, str]] = OrderedDict()

    def add(self, job: ImageJob, model: ImageModel, owner: str) -> None:
        """Keeps a job; `owner` is the namespace of the client that asked for it."""
        self._jobs[job.id] = (job, model, owner)
        for old in list(self._jobs):
            if len(self._jobs) <= MAX_KEPT:
                break
            if self._jobs[old][0].future.done():
                del self._jobs[old]

    def find(self, job_id: str, owner: str) -> tuple[ImageJob, ImageModel] | None:
        """A client's own job, and its model."""
        found = self._jobs.get(job_id)
        return None if found is None or found[2] != owner else found[:2]

    def of(self, owner: str) -> Iterator[tuple[ImageJob, ImageModel]]:
        """A client's own jobs, the oldest first."""
        return ((job, model) for job, model, kept in self._jobs.values() if kept == owner)


@contextlib.asynccontextmanager
async def submitted(
    jobs: ImageJobs, model: ImageModel, request: ImageRequest, owner: str
) -> AsyncIterator[tuple[ImageJob, asyncio.Queue[JobEvent]]]:
    """Submits a request and yields its job with its events as they come.

    Leaving before the end, as a client does that goes away, cancels it.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[JobEvent] = asyncio.Queue()

    def listen(event: JobEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            loop.call_soon_threadsafe(events.put_nowait, event)

    job = model.submit(request, listen)
    jobs.add(job, model, owner)
    try:
        yield job, events
    finally:
        if not job.future.done():
            job.cancel()
