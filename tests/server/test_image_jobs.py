"""What the server keeps of an image job, and for how long."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest

from snapllm.diffusion.job import ImageJob, ImageResult, Listener
from snapllm.diffusion.params import ImageRequest, Picture, image_request
from snapllm.server import image_jobs
from snapllm.server.image_jobs import ImageJobs, submitted


class Painter:
    """An image model that ends its jobs when it is told to."""

    id = "pix"

    def __init__(self) -> None:
        self.num_jobs = 0

    def submit(self, request: ImageRequest, listener: Listener) -> ImageJob:
        self.num_jobs += 1
        return ImageJob(f"img_{self.num_jobs}", self.id, request, listener, lambda _: None)

    def position(self, job: ImageJob) -> int:
        return 0


def result_of(job: ImageJob) -> ImageResult:
    picture = Picture(64, 64, 3, bytes(64 * 64 * 3))
    return ImageResult(
        model=job.model_id, request=job.request, pictures=(picture,), seconds=1, queue_seconds=0
    )


async def made(jobs: ImageJobs, model: Any) -> weakref.ref[ImageJob]:
    request = image_request(prompt="x", width=64, height=64, seed=5)
    async with submitted(jobs, model, request, "me") as (job, events):
        job.finish(result_of(job))
        await events.get()
        return weakref.ref(job)


def test_a_job_that_is_over_leaves_its_facts_and_no_pictures() -> None:
    async def run() -> None:
        jobs = ImageJobs()
        job = await made(jobs, Painter())
        assert job() is None
        facts = jobs.find("img_1", "me")
        assert facts is not None
        assert (facts.state, facts.model, facts.seed) == ("done", "pix", 5)
        assert jobs.find("img_1", "another") is None
        assert jobs.live("me") == [] and not jobs.cancel("img_1", "me")

    asyncio.run(run())


def test_only_the_last_jobs_that_are_over_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_jobs, "MAX_KEPT", 2)

    async def run() -> None:
        jobs, model = ImageJobs(), Painter()
        for _ in range(3):
            await made(jobs, model)
        assert jobs.find("img_1", "me") is None
        assert jobs.find("img_2", "me") and jobs.find("img_3", "me")

    asyncio.run(run())
