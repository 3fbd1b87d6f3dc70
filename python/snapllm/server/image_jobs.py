"""Image jobs as the server sees them: their events on the loop, and finding them again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import OrderedDict
from collections.abc import AsyncIterator

from snapllm.diffusion import ImageJob, ImageModel, ImageRequest
from snapllm.diffusion.job import JobEvent
from snapllm.protocol.diffusion import JobFacts

MAX_KEPT = 256
"""Jobs that are over and can still be asked about."""


def _facts(job: ImageJob, model: ImageModel) -> JobFacts:
    step = job.last_step
    return JobFacts(
        job.id,
        job.model_id,
        job.state,
        model.position(job),
        step.step,
        step.num_steps,
        round(step.seconds_per_step, 6),
        job.request.seed,
        step.image_number,
        step.num_images,
    )


class ImageJobs:
    """The jobs that wait or run, and facts of the last that are over. Event loop only.

    A job holds its pictures, given and made, so none stays here once it is over.
    """

    def __init__(self) -> None:
        self._live: dict[str, tuple[ImageJob, ImageModel, str]] = {}
        self._over: OrderedDict[str, tuple[JobFacts, str]] = OrderedDict()

    def add(self, job: ImageJob, model: ImageModel, owner: str) -> None:
        """Keeps a job up to `end`; `owner` is the namespace of the client that asked for it."""
        self._live[job.id] = job, model, owner

    def end(self, job_id: str) -> None:
        """Keeps the facts alone of a job that is over."""
        job, model, owner = self._live.pop(job_id)
        self._over[job_id] = _facts(job, model), owner
        while len(self._over) > MAX_KEPT:
            self._over.popitem(last=False)

    def find(self, job_id: str, owner: str) -> JobFacts | None:
        """What a client's own job is doing, or has come to."""
        if (live := self._live.get(job_id)) and live[2] == owner:
            return _facts(live[0], live[1])
        if (over := self._over.get(job_id)) and over[1] == owner:
            return over[0]
        return None

    def live(self, owner: str) -> list[JobFacts]:
        """A client's own jobs that wait or run, the oldest first."""
        return [
            _facts(job, model)
            for job, model, kept in self._live.values()
            if kept == owner and not job.future.done()
        ]

    def cancel(self, job_id: str, owner: str) -> bool:
        """Cancels a client's own job; False where it is over already, or unknown."""
        live = self._live.get(job_id)
        if live is None or live[2] != owner or live[0].future.done():
            return False
        live[0].cancel()
        return True


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

    def end(job_id: str, _: object) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(jobs.end, job_id)

    job = model.submit(request, listen)
    jobs.add(job, model, owner)
    # Bound to the id: a job that its own future's callback held would wait for the collector.
    job.future.add_done_callback(functools.partial(end, job.id))
    try:
        yield job, events
    finally:
        if not job.future.done():
            job.cancel()
