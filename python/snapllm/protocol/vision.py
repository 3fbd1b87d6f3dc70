"""The native API's vision endpoint."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from snapllm._media import MAX_MEDIA
from snapllm.conversation import ImageUrl, MediaPart, add_media
from snapllm.errors import InvalidRequestError
from snapllm.params import ChatRequest
from snapllm.protocol.decoding import decode_body
from snapllm.protocol.native import SamplingFields, chat_of

_URL_SCHEMES = ("data:", "http:", "https:")


class VisionRequest(SamplingFields, kw_only=True):
    """The body of POST /api/v1/vision/generate."""

    prompt: Annotated[str, Meta(min_length=1)]
    images: Annotated[
        list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=MAX_MEDIA)
    ]
    """Image files in base64, with or without a data URL around it."""
    stream: bool = False


_decoder = msgspec.json.Decoder(VisionRequest)


def parse_vision(body: bytes) -> tuple[ChatRequest, bool]:
    """Reads a vision request; returns it and whether its answer is streamed.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    wire = decode_body(body, _decoder)
    if wire.raw:
        raise InvalidRequestError("raw: a raw prompt cannot show images", param="raw")
    request = chat_of(wire, wire.prompt)
    add_media(request.messages, [_image(text, i) for i, text in enumerate(wire.images)])
    return request, wire.stream


def _image(text: str, index: int) -> MediaPart:
    is_url = text[:8].lower().startswith(_URL_SCHEMES)
    url = text if is_url else f"data:;base64,{text}"
    return MediaPart("image_url", image_url=ImageUrl(url), name=f"images[{index}]")
