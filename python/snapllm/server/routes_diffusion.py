"""The image endpoints, native and OpenAI's."""

from __future__ import annotations

import asyncio

from aiohttp import web

from snapllm._threads import Pool
from snapllm.diffusion import (
    ImageJob,
    ImageModel,
    ImagePreview,
    ImageQueued,
    ImageRequest,
    ImageResult,
    ImageStep,
)
from snapllm.diffusion.job import JobEvent
from snapllm.errors import SnapLLMError
from snapllm.protocol import diffusion, openai_image_edits, openai_images
from snapllm.protocol.diffusion import DiffusionRequest, JobFacts
from snapllm.protocol.error_codes import ApiError, api_error, encode_error
from snapllm.server.bodies import read_body, read_form
from snapllm.server.image_jobs import ImageJobs, submitted
from snapllm.server.keys import (
    cache_namespace_of,
    engine_of,
    image_model_ready,
    resolve_model,
    threads_of,
)
from snapllm.server.middleware import json_response, refuse
from snapllm.server.request_facts import facts_of
from snapllm.server.sse import DONE, EventStream, event_stream, stream_response

JOBS: web.AppKey[ImageJobs] = web.AppKey("image_jobs", ImageJobs)


async def _model_for(request: web.Request, name: str, field: str = "model") -> ImageModel:
    facts_of(request).model_field = field
    model_id = resolve_model(request, name) if name else ""
    await image_model_ready(request, model_id)
    return engine_of(request).image_model(model_id or None)


def _note(request: web.Request, model: ImageModel, job: ImageJob) -> None:
    facts_of(request).logged = {"model": model.id, "job": job.id, "seed": job.request.seed}


async def _last(events: asyncio.Queue[JobEvent]) -> ImageResult:
    """Waits for the end of a job."""
    while True:
        event = await events.get()
        if isinstance(event, ImageResult):
            return event
        if isinstance(event, Exception):
            raise event


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /api/v1/diffusion/generate"""
    wire = await read_body(request, diffusion.parse_diffusion)
    model = await _model_for(request, wire.model_name(), wire.model_field())
    media = threads_of(request).media
    wanted = await media.run(diffusion.image_request_of, wire, model)
    owner = cache_namespace_of(request)
    async with submitted(request.app[JOBS], model, wanted, owner) as (job, events):
        _note(request, model, job)
        if not wire.stream:
            result = await _last(events)
            return json_response(await media.run(diffusion.result_body, job.id, result, wire))
        async with event_stream(request) as stream:
            await _send_native(stream, media, job, model.position(job), events, wire)
    return stream_response(request)


async def _send_native(
    stream: EventStream,
    media: Pool,
    job: ImageJob,
    position: int,
    events: asyncio.Queue[JobEvent],
    wire: DiffusionRequest,
) -> None:
    # The client learns the job's id before anything else.
    await stream.send([diffusion.queued_piece(job.id, position)])
    while True:
        event = await events.get()
        if isinstance(event, ImageQueued):
            await stream.send([diffusion.queued_piece(job.id, event.position)])
        elif isinstance(event, ImageStep):
            await stream.send([diffusion.step_piece(job.id, event)])
        elif isinstance(event, ImagePreview):
            await stream.send([await media.run(diffusion.preview_piece, job.id, event)])
        elif isinstance(event, ImageResult):
            await stream.send([await media.run(diffusion.result_piece, job.id, event, wire), DONE])
            return
        else:
            await stream.fail(_error_of(event))
            return


def _error_of(error: Exception) -> ApiError:
    if isinstance(error, SnapLLMError):
        return api_error(error)
    return ApiError("internal_error", "the image failed")


async def openai_generate(request: web.Request) -> web.StreamResponse:
    """POST /v1/images/generations"""
    wire, native = await read_body(request, openai_images.parse_images)
    model = await _model_for(request, wire.model or "")
    wanted = await threads_of(request).media.run(diffusion.image_request_of, native, model)
    return await _answer_openai(request, model, wanted, wire, native, "image_generation")


async def openai_edit(request: web.Request) -> web.StreamResponse:
    """POST /v1/images/edits"""
    wire = await read_form(request, openai_image_edits.parse_edit)
    model = await _model_for(request, wire.model or "")
    wanted, native = await threads_of(request).media.run(
        openai_image_edits.edit_request_of, wire, model
    )
    return await _answer_openai(request, model, wanted, wire, native, "image_edit")


async def _answer_openai(
    request: web.Request,
    model: ImageModel,
    wanted: ImageRequest,
    wire: openai_images.ImagesRequest,
    native: DiffusionRequest,
    kind: openai_images.ImageKind,
) -> web.StreamResponse:
    media, owner = threads_of(request).media, cache_namespace_of(request)
    async with submitted(request.app[JOBS], model, wanted, owner) as (job, events):
        _note(request, model, job)
        if not native.stream:
            result = await _last(events)
            return json_response(await media.run(openai_images.images_body, result, wire, native))
        async with event_stream(request) as stream:
            await _send_openai(stream, media, events, wire, native, kind)
    return stream_response(request)


async def _send_openai(
    stream: EventStream,
    media: Pool,
    events: asyncio.Queue[JobEvent],
    wire: openai_images.ImagesRequest,
    native: DiffusionRequest,
    kind: openai_images.ImageKind,
) -> None:
    num_sent = 0
    while True:
        event = await events.get()
        if isinstance(event, ImagePreview) and num_sent < (wire.partial_images or 0):
            data = await media.run(openai_images.partial_event, event, num_sent, native, kind)
            await stream.send_raw(data)
            num_sent += 1
        elif isinstance(event, ImageResult):
            await stream.send_raw(
                await media.run(openai_images.completed_events, event, native, kind)
            )
            return
        elif isinstance(event, Exception):
            error = _error_of(event)
            await stream.fail(error, b"event: error\ndata: " + encode_error(error) + b"\n\n")
            return


async def list_jobs(request: web.Request) -> web.Response:
    """GET /api/v1/diffusion/jobs"""
    jobs = request.app[JOBS].live(cache_namespace_of(request))
    return json_response(diffusion.jobs_body(jobs))


async def get_job(request: web.Request) -> web.Response:
    """GET /api/v1/diffusion/jobs/{id}"""
    found = _find(request)
    if found is None:
        return _unknown(request)
    return json_response(diffusion.job_body(found))


async def cancel_job(request: web.Request) -> web.Response:
    """DELETE /api/v1/diffusion/jobs/{id}"""
    found = _find(request)
    if found is None:
        return _unknown(request)
    is_cancelled = request.app[JOBS].cancel(found.id, cache_namespace_of(request))
    return json_response(diffusion.cancelled_body(found, is_cancelled))


def _find(request: web.Request) -> JobFacts | None:
    return request.app[JOBS].find(request.match_info["job_id"], cache_namespace_of(request))


def _unknown(request: web.Request) -> web.Response:
    job_id = request.match_info["job_id"]
    return refuse(request, ApiError("not_found", f"Image job not found: {job_id}", "job_id"))


def add_routes(app: web.Application) -> None:
    """Adds the endpoints."""
    app[JOBS] = ImageJobs()
    app.router.add_post("/api/v1/diffusion/generate", generate)
    app.router.add_get("/api/v1/diffusion/jobs", list_jobs)
    app.router.add_get("/api/v1/diffusion/jobs/{job_id}", get_job)
    app.router.add_delete("/api/v1/diffusion/jobs/{job_id}", cancel_job)
    app.router.add_post("/v1/images/generations", openai_generate)
    app.router.add_post("/v1/images/edits", openai_edit)
