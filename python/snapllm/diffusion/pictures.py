"""Pictures in and out: what requests bring, and the files that come back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from snapllm._base64 import decode_base64, decode_data_url, is_data_url
from snapllm._media import load_image
from snapllm.diffusion.params import Picture

if TYPE_CHECKING:
    from PIL import Image

ImageFormat: TypeAlias = Literal["png", "jpeg", "webp"]
DEFAULT_QUALITY = 95
"""Of JPEG and WebP files."""


def to_pillow(picture: Picture) -> Image.Image:
    """The picture as Pillow has it."""
    from PIL import Image

    mode = "RGB" if picture.num_channels == 3 else "L"
    return Image.frombytes(mode, (picture.width, picture.height), picture.samples)


def read_picture(source: Any, where: str, width: int, height: int, mode: str = "RGB") -> Picture:
    """Reads an image and brings it to a size.

    Args:
        source: A path, the bytes of a file, a uint8 array or a Pillow image.
        where: The argument that brought it, for errors.
        width: Of the result; the image is cut to this shape around its middle.
        height: Of the result.
        mode: ``RGB``, or ``L`` for a mask.

    Raises:
        InvalidRequestError: It is no image, damaged, or beyond a limit.
    """
    from PIL import Image, ImageOps

    # What is painted over is what a mask's colours say, whatever can be seen of them.
    media = load_image(source, where, drop_alpha=mode == "L")
    image: Image.Image = Image.frombytes("RGB", (media.width, media.height), media.data)
    if image.size != (width, height):
        method = Image.Resampling.LANCZOS if mode == "RGB" else Image.Resampling.NEAREST
        image = ImageOps.fit(image, (width, height), method)
    image = image.convert(mode)
    return Picture(width, height, len(image.getbands()), image.tobytes())


def read_base64_image(text: str, where: str) -> bytes:
    """Reads an image file from base64, with or without a data URL's prefix.

    Raises:
        InvalidRequestError: It is something else.
    """
    return decode_data_url(text, where) if is_data_url(text) else decode_base64(text, where)


def encode(
    picture: Picture,
    image_format: ImageFormat = "png",
    quality: int = DEFAULT_QUALITY,
    info: Mapping[str, str] | None = None,
) -> bytes:
    """The picture as a file.

    Args:
        picture: What to encode.
        image_format: Of the file.
        quality: Of a JPEG or WebP, 1 to 100; 100 makes a WebP lossless.
        info: Texts to keep in a PNG, by keyword.
    """
    from PIL.PngImagePlugin import PngInfo

    file = io.BytesIO()
    image = to_pillow(picture)
    if image_format == "png":
        texts = PngInfo()
        for key, text in (info or {}).items():
            texts.add_itxt(key, text)
        image.save(file, "PNG", pnginfo=texts)
    elif image_format == "jpeg":
        image.save(file, "JPEG", quality=quality)
    else:
        image.save(file, "WEBP", quality=quality, lossless=quality == 100)
    return file.getvalue()
