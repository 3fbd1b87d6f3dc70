"""The native API's image endpoint, as the specification has it, and what it adds."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta
from typing_extensions import TypedDict

from snapllm.diffusion import ImageModel, ImagePreview, ImageRequest, ImageResult, ImageStep
from snapllm.diffusion.job import JobState
from snapllm.diffusion.loras import LoraWeight
from snapllm.diffusion.params import (
    CfgScale,
    ImageSeed,
    NegativePrompt,
    NumImages,
    NumSteps,
    PreviewInterval,
    Prompt,
    Side,
    Strength,
)
from snapllm.diffusion.pictures import DEFAULT_QUALITY, ImageFormat, encode, read_base64_image
from snapllm.errors import InvalidRequestError
from snapllm.params import ModelNameOrNone
from snapllm.protocol.decoding import decode_body

if TYPE_CHECKING:
    from snapllm.protocol.stream_types import PreviewPiece, QueuedPiece, ResultPiece, StepPiece

_encode = msgspec.json.encode
MAX_LORAS = 16

# What the fields of the API are called in `ImageRequest`, where that differs.
_FIELDS = {"num_steps": "steps", "num_images": "batch_count"}


class DiffusionRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/diffusion/generate."""

    prompt: Prompt
    negative_prompt: NegativePrompt = ""
    width: Side = 512
    height: Side = 512
    steps: NumSteps = 20
    cfg_scale: CfgScale = 7.0
    seed: ImageSeed = -1
    model: ModelNameOrNone | None = None
    model_id: ModelNameOrNone | None = None
    sampler: str = ""
    scheduler: str = ""
    guidance: CfgScale = 3.5
    clip_skip: Annotated[int, Meta(ge=-1, le=12)] = -1
    batch_count: NumImages = 1
    init_image: str | None = None
    """An image file in base64 to start from, with or without a data URL around it."""
    strength: Strength = 0.75
    mask: str | None = None
    """An image file in base64: white is painted over, black stays."""
    loras: Annotated[dict[str, LoraWeight], Meta(max_length=MAX_LORAS)] = {}
    upscale: bool = False
    output_format: ImageFormat = "png"
    quality: Annotated[int, Meta(ge=1, le=100)] = DEFAULT_QUALITY
    stream: bool = False
    preview_interval: PreviewInterval = 0
    """Steps between previews in a stream; 0 = none."""

    def model_name(self) -> str:
        """The model to use; empty = the active one."""
        return self.model or self.model_id or ""

    def model_field(self) -> str:
        """Where it is named."""
        return "model" if self.model or not self.model_id else "model_id"


class DiffusionAnswer(TypedDict):
    """The answer to an image request."""

    status: Literal["success"]
    image: str
    """The first of `images`: files in base64."""
    seed: int
    generation_time_s: float
    queue_time_s: float
    model: str
    job_id: str
    format: ImageFormat
    width: int
    height: int
    images: list[str]
    seeds: list[int]


class JobFacts(msgspec.Struct, frozen=True):
    """What a client learns about an image job."""

    id: str
    model: str
    state: JobState
    position: int
    """How many jobs are before it."""
    step: int
    of: int
    seconds_per_step: float
    seed: int
    image_number: int
    """Which image of the batch is being made, from 1 on; `step` is its own."""
    batch_count: int


class JobAnswer(TypedDict):
    """The body of GET /api/v1/diffusion/jobs/{job_id}."""

    job: JobFacts


class JobList(TypedDict):
    """The body of GET /api/v1/diffusion/jobs."""

    jobs: list[JobFacts]
    count: int


class CancelledJob(TypedDict):
    """The body of DELETE /api/v1/diffusion/jobs/{job_id}."""

    status: Literal["success"]
    message: str
    job_id: str
    state: JobState


_decoder = msgspec.json.Decoder(DiffusionRequest)


def parse_diffusion(body: bytes) -> DiffusionRequest:
    """Reads an image request.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    return decode_body(body, _decoder)


def image_request_of(
    wire: DiffusionRequest, model: ImageModel, images: Mapping[str, Any] | None = None
) -> ImageRequest:
    """What a body asks of a model.

    Args:
        wire: The body.
        model: The model.
        images: `init_image` and `mask` as `ImageModel.generate_image` takes them, in place of
            the body's.

    Raises:
        InvalidRequestError: Fields do not fit together or to the model, or an image
            cannot be read; `param` names the field at fault.
    """
    images = images or {
        name: None if text is None else read_base64_image(text, name)
        for name, text in (("init_image", wire.init_image), ("mask", wire.mask))
    }
    try:
        return model.request(
            wire.prompt,
            **images,
            loras=wire.loras,
            negative_prompt=wire.negative_prompt,
            width=wire.width,
            height=wire.height,
            num_steps=wire.steps,
            cfg_scale=wire.cfg_scale,
            guidance=wire.guidance,
            seed=wire.seed,
            sampler=wire.sampler,
            scheduler=wire.scheduler,
            clip_skip=wire.clip_skip,
            num_images=wire.batch_count,
            strength=wire.strength,
            upscale=wire.upscale,
            preview_interval=wire.preview_interval if wire.stream else 0,
        )
    except InvalidRequestError as error:
        name = _FIELDS.get(error.param or "", error.param)
        message = error.message
        if name != error.param:
            message = message.replace(str(error.param), str(name), 1)
        raise InvalidRequestError(message, param=name) from None


def encode_images(result: ImageResult, image_format: ImageFormat, quality: int) -> list[str]:
    """The images of a result as files in base64; a PNG says what it was made with."""
    texts = []
    for picture, parameters in zip(result.pictures, result.parameters, strict=True):
        data = encode(picture, image_format, quality, {"parameters": parameters})
        texts.append(base64.b64encode(data).decode())
    return texts


def result_object(job_id: str, result: ImageResult, wire: DiffusionRequest) -> DiffusionAnswer:
    """The answer to an image request; `image` is the first one."""
    images = encode_images(result, wire.output_format, wire.quality)
    first = result.pictures[0]
    return {
        "status": "success",
        "image": images[0],
        "seed": result.seeds[0],
        "generation_time_s": round(result.seconds, 6),
        "queue_time_s": round(result.queue_seconds, 6),
        "model": result.model,
        "job_id": job_id,
        "format": wire.output_format,
        "width": first.width,
        "height": first.height,
        "images": images,
        "seeds": result.seeds,
    }


def result_body(job_id: str, result: ImageResult, wire: DiffusionRequest) -> bytes:
    """The body of an answer that is not streamed."""
    return _encode(result_object(job_id, result, wire))


def result_piece(job_id: str, result: ImageResult, wire: DiffusionRequest) -> bytes:
    """The last piece of a stream."""
    piece: ResultPiece = {"type": "result", **result_object(job_id, result, wire), "done": True}
    return _encode(piece)


def queued_piece(job_id: str, position: int) -> bytes:
    """A piece of a stream: how many jobs are before this one."""
    piece: QueuedPiece = {"type": "queued", "job_id": job_id, "position": position, "done": False}
    return _encode(piece)


def step_piece(job_id: str, step: ImageStep) -> bytes:
    """A piece of a stream: so many steps are done."""
    piece: StepPiece = {
        "type": "progress",
        "job_id": job_id,
        "step": step.step,
        "of": step.num_steps,
        "seconds_per_step": round(step.seconds_per_step, 6),
        "image_number": step.image_number,
        "batch_count": step.num_images,
        "done": False,
    }
    return _encode(piece)


def preview_piece(job_id: str, preview: ImagePreview) -> bytes:
    """A piece of a stream: a rough picture, as a JPEG in base64."""
    piece: PreviewPiece = {
        "type": "preview",
        "job_id": job_id,
        "step": preview.step,
        "image": base64.b64encode(encode(preview.picture, "jpeg", 80)).decode(),
        "format": "jpeg",
        "image_number": preview.image_number,
        "batch_count": preview.num_images,
        "done": False,
    }
    return _encode(piece)


def job_body(facts: JobFacts) -> bytes:
    """The answer about one job."""
    body: JobAnswer = {"job": facts}
    return _encode(body)


def jobs_body(jobs: list[JobFacts]) -> bytes:
    """The list of jobs."""
    body: JobList = {"jobs": jobs, "count": len(jobs)}
    return _encode(body)


def cancelled_body(facts: JobFacts, is_cancelled: bool) -> bytes:
    """The answer to a cancellation; a job that was over stays what it was."""
    body: CancelledJob = {
        "status": "success",
        "message": f"Job {'cancelled' if is_cancelled else 'was over already'}: {facts.id}",
        "job_id": facts.id,
        "state": "cancelled" if is_cancelled else facts.state,
    }
    return _encode(body)
