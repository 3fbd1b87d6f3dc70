"""OpenAI's endpoint that edits images: a form with files.

Reference: https://platform.openai.com/docs/api-reference/images/createEdit
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from snapllm._checks import convert
from snapllm._media import decode_image, decode_transparency
from snapllm.diffusion import ImageModel, ImageRequest
from snapllm.diffusion.params import Strength
from snapllm.errors import InvalidRequestError
from snapllm.protocol.diffusion import DiffusionRequest, image_request_of
from snapllm.protocol.openai_images import ImagesRequest, native_request

_FILE = {"contentEncoding": "binary", "contentMediaType": "image/*"}
File: TypeAlias = Annotated[bytes, Meta(extra_json_schema=_FILE)]
MAX_OWN_SIDE = 1024
"""Of an image whose size is its original's: what is larger is made smaller."""
_NATIVE_NAMES = {"init_image": "image"}


class ImageEdit(ImagesRequest, kw_only=True):
    """The form of POST /v1/images/edits; fields it does not name are ignored."""

    image: File
    mask: File | None = None
    """What is transparent in it is painted over; where it has no transparency, what is white.
    Without a mask what is transparent in the image is, or all of it."""
    input_fidelity: Literal["high", "low"] | None = None
    """A hint, which changes nothing: `strength` is what says it here."""
    # Of other image servers, and of use here:
    strength: Strength = 0.75


def parse_edit(form: Mapping[str, Sequence[str | bytes]]) -> ImageEdit:
    """Reads a form.

    Args:
        form: The values of each field: text, or the bytes of a file.

    Raises:
        InvalidRequestError: It does not fit; `param` names the field at fault.
    """
    fields: dict[str, Any] = {}
    for name, values in form.items():
        plain = name.removesuffix("[]")  # as clients call those that may be several
        if plain not in ImageEdit.__struct_fields__:
            continue
        if plain in fields or len(values) > 1:
            raise InvalidRequestError(f"{plain}: only one can be used here", param=plain)
        if plain != "mask" or values[0]:  # forms have it empty where nobody chose a file
            fields[plain] = values[0]
    return convert(fields, ImageEdit, strict=False)


def edit_request_of(edit: ImageEdit, model: ImageModel) -> tuple[ImageRequest, DiffusionRequest]:
    """What a form asks of a model, and what that means to the native endpoint.

    Raises:
        InvalidRequestError: Fields do not fit together or to the model, or an image cannot be
            read; `param` names the field at fault.
    """
    native = native_request(edit)
    native.strength = edit.strength
    if edit.size in (None, "auto"):
        original = decode_image(edit.image, "image")
        native.width, native.height = _own_size(original.width, original.height)
    images = {"init_image": edit.image, "mask": _mask_of(edit)}
    try:
        return image_request_of(native, model, images), native
    except InvalidRequestError as error:
        name = _NATIVE_NAMES.get(error.param or "")
        if name is None:
            raise
        message = error.message.replace(str(error.param), name, 1)
        raise InvalidRequestError(message, param=name) from None


def _own_size(width: int, height: int) -> tuple[int, int]:
    """The nearest size that can be made of this shape."""
    share = min(1.0, MAX_OWN_SIDE / max(width, height))
    width, height = (max(64, round(side * share / 64) * 64) for side in (width, height))
    return width, height


def _mask_of(edit: ImageEdit) -> Any:
    if edit.mask is None:
        return decode_transparency(edit.image, "image")
    seen_through = decode_transparency(edit.mask, "mask")
    return edit.mask if seen_through is None else seen_through
