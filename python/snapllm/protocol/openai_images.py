"""OpenAI's images endpoint.

Reference: https://platform.openai.com/docs/api-reference/images
"""

from __future__ import annotations

import base64
import re
import time
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta
from typing_extensions import TypedDict

from snapllm.diffusion import ImagePreview, ImageResult
from snapllm.diffusion.params import MAX_SIDE, CfgScale, ImageSeed, NegativePrompt, NumSteps, Prompt
from snapllm.diffusion.pictures import DEFAULT_QUALITY, ImageFormat, encode
from snapllm.errors import InvalidRequestError
from snapllm.params import ModelNameOrNone
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.diffusion import DiffusionRequest, encode_images

if TYPE_CHECKING:
    from snapllm.protocol.openai_answer_types import GeneratedImage, ImagesAnswer
    from snapllm.protocol.stream_types import CompletedImage, ImageUsage, PartialImage

_encode = msgspec.json.encode
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
DEFAULT_SIDE = 512


Quality: TypeAlias = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


class ImagesRequest(msgspec.Struct, kw_only=True):
    """The body of POST /v1/images/generations; fields it does not name are ignored."""

    prompt: Prompt
    model: ModelNameOrNone = ""
    n: Annotated[int, Meta(ge=1, le=10)] | None = 1
    size: str | None = "auto"
    response_format: Literal["b64_json", "url"] | None = "b64_json"
    output_format: ImageFormat | None = "png"
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    stream: bool | None = False
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = 0
    quality: Quality | None = None
    """A hint, which changes nothing: how good an image gets is a matter of its steps."""
    background: Literal["auto", "opaque", "transparent"] | None = None
    # Of other image servers, and of use here:
    seed: ImageSeed = -1
    steps: NumSteps = 20
    cfg_scale: CfgScale = 7.0
    negative_prompt: NegativePrompt = ""


_decoder = msgspec.json.Decoder(ImagesRequest)


def parse_images(body: bytes) -> tuple[ImagesRequest, DiffusionRequest]:
    """Reads a request; returns it and what it means to the native endpoint.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    wire = decode_body(body, _decoder)
    return wire, native_request(wire)


def native_request(wire: ImagesRequest) -> DiffusionRequest:
    """What a request means to the native endpoint.

    Raises:
        InvalidRequestError: It asks for what cannot be had; `param` names the field at fault.
    """
    if wire.background == "transparent":
        raise InvalidRequestError(
            "background: the models here paint opaque images only", param="background"
        )
    width, height = _size(wire.size)
    quality = DEFAULT_QUALITY if wire.output_compression is None else wire.output_compression
    # With fewer steps than that there is one after each.
    interval = max(1, wire.steps // (wire.partial_images + 1)) if wire.partial_images else 0
    return DiffusionRequest(
        prompt=wire.prompt,
        model=wire.model,
        negative_prompt=wire.negative_prompt,
        width=width,
        height=height,
        steps=wire.steps,
        cfg_scale=wire.cfg_scale,
        seed=wire.seed,
        batch_count=wire.n or 1,
        output_format=wire.output_format or "png",
        quality=max(1, quality),
        stream=bool(wire.stream),
        preview_interval=interval,
    )


def _size(size: str | None) -> tuple[int, int]:
    if size in (None, "auto"):
        return DEFAULT_SIDE, DEFAULT_SIDE
    found = _SIZE.fullmatch(size or "")
    if found is None:
        raise InvalidRequestError(
            f"size: expected auto or WIDTHxHEIGHT, not {size!r}", param="size"
        )
    width, height = int(found[1]), int(found[2])
    if any(side % 64 or not 64 <= side <= MAX_SIDE for side in (width, height)):
        raise InvalidRequestError(
            f"size: {size} is not of multiples of 64 from 64 to {MAX_SIDE}", param="size"
        )
    return width, height


def images_body(result: ImageResult, wire: ImagesRequest, native: DiffusionRequest) -> bytes:
    """The answer that is not streamed. There is no place to fetch a URL from: it is a
    data URL."""
    files = encode_images(result, native.output_format, native.quality)
    mime = f"image/{native.output_format}"
    data: list[GeneratedImage] = [
        {"url": f"data:{mime};base64,{file}", "seed": seed}
        if wire.response_format == "url"
        else {"b64_json": file, "seed": seed}
        for file, seed in zip(files, result.seeds, strict=True)
    ]
    body: ImagesAnswer = {"created": int(time.time()), "data": data, **_facts(native)}
    return _encode(body)


ImageKind: TypeAlias = Literal["image_generation", "image_edit"]
"""What the events of a stream are named after."""


class _Facts(TypedDict):
    size: str
    output_format: str
    background: Literal["opaque"]


def _facts(native: DiffusionRequest) -> _Facts:
    return {
        "size": f"{native.width}x{native.height}",
        "output_format": native.output_format,
        "background": "opaque",
    }


def _encoded(event: PartialImage | CompletedImage) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + _encode(event) + b"\n\n"


def partial_event(
    preview: ImagePreview, index: int, native: DiffusionRequest, kind: ImageKind
) -> bytes:
    """A streamed preview."""
    data = encode(preview.picture, native.output_format, native.quality)
    event: PartialImage = {
        "type": f"{kind}.partial_image",  # type: ignore[typeddict-item]
        "quality": "auto",  # a whole answer has none, and an event must have one
        "b64_json": base64.b64encode(data).decode(),
        "partial_image_index": index,
        "created_at": int(time.time()),
        **_facts(native),
    }
    return _encoded(event)


def completed_events(result: ImageResult, native: DiffusionRequest, kind: ImageKind) -> bytes:
    """The end of a stream: one event for each image."""
    usage: ImageUsage = {
        "input_tokens": 0,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "output_tokens": 0,
        "total_tokens": 0,
    }
    events: list[CompletedImage] = [
        {
            "type": f"{kind}.completed",  # type: ignore[typeddict-item]
            "quality": "auto",
            "b64_json": file,
            "created_at": int(time.time()),
            "usage": usage,
            **_facts(native),
        }
        for file in encode_images(result, native.output_format, native.quality)
    ]
    return b"".join(map(_encoded, events))
