"""Images and audio on their way to the model: reading, limits, decoding.

Whatever comes in here may be hostile. Sizes are checked before anything is decoded, only
common formats are tried, and whatever a decoder raises becomes an error of the request.
"""

from __future__ import annotations

import base64
import io
import secrets
import wave
from collections.abc import Callable
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from snapllm import _core
from snapllm._base64 import MAX_WAV_BYTES, decode_base64, decode_data_url, is_data_url
from snapllm._checks import check_no_data_url
from snapllm._jpeg import check_jpeg
from snapllm.conversation import ContentPart, ImageUrl, MediaPart
from snapllm.errors import InvalidRequestError

if TYPE_CHECKING:
    from PIL import Image

MAX_MEDIA = 64
"""Images and sounds of one request."""
MAX_IMAGE_BYTES = 20 << 20
MAX_IMAGE_PIXELS = 1 << 25
MAX_PIXELS = 1 << 27
"""Of all images of one request, which are held together: 64 screenshots of 1920 x 1080."""
MAX_IMAGE_SIDE = 1 << 14
MAX_ASPECT_RATIO = 100
MAX_WAV_SECONDS = 600
MAX_MP3_BYTES = 2 << 20
"""At the lowest bit rate there is, half an hour."""
MAX_SOUNDS = 2.0
"""Sounds of one request, each as the share that it has of the longest."""

MAX_EXIF_BYTES = 1 << 16

_EXIF_NAMES = ("exif", "Raw profile type exif")  # of Image.info
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_Decoded = TypeVar("_Decoded")


class MediaPolicy(msgspec.Struct, frozen=True):
    """What media a request may bring beyond those it carries itself."""

    fetch: Callable[[str], bytes] | None = None
    """Reads an http(s) URL, or raises `InvalidRequestError`; None = URLs are refused."""


class MediaLoader:
    """Collects the media of one conversation, in their order."""

    def __init__(
        self, policy: MediaPolicy, *, takes_images: bool = True, takes_audio: bool = True
    ) -> None:
        self.inputs: list[_core.MediaInput] = []
        self.marker = f"<media-{secrets.token_hex(16)}>"
        """Stands for each of them in the prompt; nobody can guess it."""
        self._policy = policy
        self._takes_images, self._takes_audio = takes_images, takes_audio
        self._pixels_left = MAX_PIXELS
        self._sounds_left = MAX_SOUNDS

    def place(self, part: ContentPart, where: str) -> str:
        """Loads the part's image or sound and returns what stands for it.

        Raises:
            InvalidRequestError: The model takes no such thing, it cannot be read, or is
                beyond a limit.
        """
        try:
            return self._placed(part, where)
        except InvalidRequestError as error:
            if not isinstance(part, MediaPart) or not part.refusal:
                raise
            raise InvalidRequestError(
                f"{part.refusal}: {error.message}", param=error.param
            ) from None

    def _placed(self, part: ContentPart, where: str) -> str:
        name = _name_of(part, where)
        self._check_taken(part, name)
        if len(self.inputs) >= MAX_MEDIA:
            # Of a part of a message, the part; what the caller wrote elsewhere has its own name.
            named = name if isinstance(part, MediaPart) else where
            raise InvalidRequestError(
                f"{named}: more than {MAX_MEDIA} images in one request", param=named
            )
        loaded = self._load(part, name)
        self.inputs.append(loaded)
        self._pixels_left -= loaded.width * loaded.height
        return self.marker

    def _check_taken(self, part: ContentPart, name: str) -> None:
        is_audio = part.type == "input_audio"
        if self._takes_audio if is_audio else self._takes_images:
            return
        what = "no audio" if is_audio else "no images"
        if not (self._takes_images or self._takes_audio):
            what = "text only: no images or audio"
        raise InvalidRequestError(f"{name}: this model takes {what}", param=name)

    def _load(self, part: ContentPart, name: str) -> _core.MediaInput:
        if part.type == "input_audio":
            if part.input_audio is None:
                raise InvalidRequestError(f"{name} is required", param=name)
            data = decode_base64(part.input_audio.data, f"{name}.data")
            sound = decode_audio(data, part.input_audio.format, name)
            self._sounds_left -= _share_of_longest(data, part.input_audio.format)
            if self._sounds_left < 0:
                raise InvalidRequestError(
                    f"{name}: the sounds of the request are too long together", param=name
                )
            return sound
        if part.image_url:
            return self._load_url(part.image_url, name)
        if isinstance(part, MediaPart):
            return load_image(part.source, name, pixels_left=self._pixels_left)
        raise InvalidRequestError(f"{name} is required", param=name)

    def _load_url(self, image_url: ImageUrl | str, where: str) -> _core.MediaInput:
        url = image_url if isinstance(image_url, str) else image_url.url
        data = self._read_url(url, where)
        return decode_image(data, where, pixels_left=self._pixels_left)

    def _read_url(self, url: str, where: str) -> bytes:
        if is_data_url(url):
            return decode_data_url(url, where)
        if url[:5].lower() != "http:" and url[:6].lower() != "https:":
            raise InvalidRequestError(
                f"{where} must be a data URL with base64 data, or an http(s) URL", param=where
            )
        if self._policy.fetch is None:
            raise InvalidRequestError(
                f"{where}: images are not fetched from URLs here; send their bytes in base64",
                param=where,
            )
        try:
            return self._policy.fetch(url)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{where}: {error.message}", param=where) from None


def _name_of(part: ContentPart, where: str) -> str:
    """What to call the image or sound of the part in an error."""
    if isinstance(part, MediaPart):
        return part.name
    return f"{where}.input_audio" if part.type == "input_audio" else f"{where}.image_url"


def load_image(
    source: Any, where: str, *, drop_alpha: bool = False, pixels_left: int = MAX_PIXELS
) -> _core.MediaInput:
    """Reads an image that Python code hands in.

    Args:
        source: A path, the bytes of an image file, a Pillow image, or an array of uint8
            with the shape (height, width), (height, width, 3) or (height, width, 4).
        where: What to call it in an error.
        drop_alpha: Take the colours of transparent pixels as they are; otherwise they are
            seen on white.
        pixels_left: How many the request's other images leave to it.

    Raises:
        InvalidRequestError: It is none of these, cannot be read, or is beyond a limit.
    """
    from PIL import Image

    check_no_data_url(source, where)
    if isinstance(source, str | PathLike):
        source = _read_file(Path(source), where)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        return decode_image(data, where, drop_alpha=drop_alpha, pixels_left=pixels_left)
    if not isinstance(source, Image.Image) and hasattr(source, "__array_interface__"):
        source = _guarded(lambda: _from_array(source, where), where)
    if isinstance(source, Image.Image):
        return _guarded(lambda: _to_input(source, where, drop_alpha, pixels_left), where)
    raise InvalidRequestError(
        f"{where}: expected a path, bytes, an array or a Pillow image, not {type(source).__name__}",
        param=where,
    )


def image_data_url(source: Any, where: str) -> str:
    """The image as a data URL: a file's bytes as they are, pixels as PNG.

    Takes, and raises, what `load_image` does.
    """
    if isinstance(source, str | PathLike):
        data = _read_file(Path(source), where)
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        from PIL import Image

        pixels = load_image(source, where)
        file = io.BytesIO()
        image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.data)
        image.save(file, "PNG")
        data = file.getvalue()
    return f"data:image;base64,{base64.b64encode(data).decode()}"


def decode_image(
    data: bytes, where: str, *, drop_alpha: bool = False, pixels_left: int = MAX_PIXELS
) -> _core.MediaInput:
    """Decodes an image file; of an animation the first picture. See `load_image`.

    Raises:
        InvalidRequestError: It is no image of a common format, damaged, or beyond a limit.
    """
    return _read_image(data, where, lambda image: _to_input(image, where, drop_alpha, pixels_left))


def decode_transparency(data: bytes, where: str) -> Image.Image | None:
    """What is transparent in an image file, as a mask: black where nothing can be seen through,
    white where all can. None where no pixel of it is.

    Raises:
        InvalidRequestError: As `decode_image`.
    """

    def read(image: Image.Image) -> Image.Image | None:
        from PIL import ImageOps

        upright = _upright(image, where)
        if not upright.has_transparency_data:
            return None
        mask = ImageOps.invert(upright.convert("RGBA").getchannel("A"))
        return mask if mask.getbbox() else None

    return _read_image(data, where, read)


def _read_image(data: bytes, where: str, read: Callable[[Image.Image], _Decoded]) -> _Decoded:
    from PIL import Image, UnidentifiedImageError

    if len(data) > MAX_IMAGE_BYTES:
        raise InvalidRequestError(
            f"{where}: the image has {len(data)} bytes, at most {MAX_IMAGE_BYTES} are allowed",
            param=where,
        )
    if data.startswith(b"\xff\xd8"):
        check_jpeg(data, where)

    def decode() -> _Decoded:
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                return read(image)
        except UnidentifiedImageError:
            raise InvalidRequestError(
                f"{where}: not an image in one of the formats {', '.join(_FORMATS)}", param=where
            ) from None
        except Image.DecompressionBombError:
            raise _too_many_pixels(where) from None

    return _guarded(decode, where)


def decode_audio(data: bytes, format_: str, where: str) -> _core.MediaInput:
    """Checks a sound file; the core decodes it.

    Raises:
        InvalidRequestError: It is not of the format, damaged, or beyond a limit.
    """
    if format_ == "wav":
        _check_wav(data, where)
    elif format_ == "mp3":
        if len(data) > MAX_MP3_BYTES:
            raise InvalidRequestError(
                f"{where}: the MP3 is larger than {MAX_MP3_BYTES} bytes", param=where
            )
        if not data.startswith(b"ID3") and not (data[:1] == b"\xff" and data[1:2] >= b"\xe0"):
            raise InvalidRequestError(f"{where}: not an MP3 file", param=where)
    else:
        raise InvalidRequestError(f"{where}.format must be wav or mp3", param=f"{where}.format")
    return _core.MediaInput(kind="audio", data=data, id=_hash(b"audio", data))


def _share_of_longest(data: bytes, format_: str) -> float:
    """Of a sound that was checked: what it takes, decoded, of what the longest would."""
    if format_ == "mp3":
        return len(data) / MAX_MP3_BYTES
    with wave.open(io.BytesIO(data)) as sound:
        return float(sound.getnframes() / sound.getframerate() / MAX_WAV_SECONDS)


def _check_wav(data: bytes, where: str) -> None:
    if len(data) > MAX_WAV_BYTES:
        raise InvalidRequestError(
            f"{where}: the WAV is larger than {MAX_WAV_BYTES} bytes", param=where
        )
    try:
        with wave.open(io.BytesIO(data)) as sound:
            seconds = sound.getnframes() / max(sound.getframerate(), 1)
            is_sound = sound.getnframes() > 0 and 1000 <= sound.getframerate() <= 384_000
    except (wave.Error, EOFError, ValueError, OverflowError):
        is_sound = False
    if not is_sound:
        raise InvalidRequestError(f"{where}: not a WAV file with PCM samples", param=where)
    if seconds > MAX_WAV_SECONDS:
        raise InvalidRequestError(
            f"{where}: the sound is longer than {MAX_WAV_SECONDS} s", param=where
        )


def _read_file(path: Path, where: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{where}: cannot read {path}: {error}", param=where) from None


def _from_array(array: Any, where: str) -> Image.Image:
    from PIL import Image

    interface = array.__array_interface__
    shape = interface["shape"]
    is_picture = len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))
    if not is_picture or interface["typestr"] != "|u1":
        raise InvalidRequestError(
            f"{where}: an array must be uint8 of shape (height, width), (height, width, 3) or "
            "(height, width, 4)",
            param=where,
        )
    _check_size(shape[1], shape[0], where)
    return Image.fromarray(array)


def _guarded(decode: Callable[[], _Decoded], where: str) -> _Decoded:
    try:
        return decode()
    except InvalidRequestError:
        raise
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise InvalidRequestError(f"{where}: the image is damaged: {error}", param=where) from None


def _too_many_pixels(where: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{where}: the image has too many pixels, at most {MAX_IMAGE_PIXELS} are allowed",
        param=where,
    )


def _check_size(width: int, height: int, where: str) -> None:
    if min(width, height) < 1:
        raise InvalidRequestError(f"{where}: the image is empty", param=where)
    if width * height > MAX_IMAGE_PIXELS:
        raise _too_many_pixels(where)
    if max(width, height) > MAX_IMAGE_SIDE:
        raise InvalidRequestError(
            f"{where}: the image is {width} x {height}, at most {MAX_IMAGE_SIDE} pixels a side "
            "are allowed",
            param=where,
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InvalidRequestError(
            f"{where}: the image is more than {MAX_ASPECT_RATIO} times as long as wide",
            param=where,
        )


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)


def _upright(image: Image.Image, where: str) -> Image.Image:
    """The image, decoded and turned as it says that it is to be seen."""
    from PIL import ImageOps

    # The header's size, before any pixel is decoded.
    _check_size(*image.size, where)
    image.load()  # some of what is known about it stands behind its pixels
    # Tags may all stand for the same bytes, and each would be a copy of them.
    has_small_exif = all(len(image.info.get(name, b"")) <= MAX_EXIF_BYTES for name in _EXIF_NAMES)
    return ImageOps.exif_transpose(image) if has_small_exif else image


def _to_input(
    image: Image.Image, where: str, drop_alpha: bool, pixels_left: int
) -> _core.MediaInput:
    if image.width * image.height > pixels_left:
        raise InvalidRequestError(
            f"{where}: with the images before it, the request has more than {MAX_PIXELS} pixels",
            param=where,
        )
    upright = _upright(image, where)
    if upright.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        # 16 bits of grey, which Pillow would cut off instead of scaling.
        upright = upright.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    elif upright.has_transparency_data and not drop_alpha:
        upright = _on_white(upright)
    rgb = upright.convert("RGB")
    width, height = rgb.size
    data = rgb.tobytes()
    return _core.MediaInput(
        kind="image",
        width=width,
        height=height,
        data=data,
        id=_hash(f"image {width}x{height}".encode(), data),
    )


def _hash(kind: bytes, data: bytes) -> str:
    return blake2b(data, digest_size=16, person=blake2b(kind, digest_size=16).digest()).hexdigest()
