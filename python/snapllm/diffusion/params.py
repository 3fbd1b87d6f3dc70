"""What an image request asks for, and what of it is refused.

stable-diffusion.cpp aborts, hangs or crashes on values out of range, so everything is
checked here, for every way in.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta
from typing_extensions import TypedDict

from snapllm._checks import check_text, invalid_field, is_file, plain_number
from snapllm.errors import InvalidRequestError

SIZE_STEP = 64
MAX_SIDE = 2048
MAX_PROMPT_CHARS = 4000
MAX_RESULT_BYTES = 1 << 30
"""Samples of all images of one request, enlarged or not."""
MAX_SEED = 2**53 - 1  # what a JSON number holds exactly in every client

SAMPLERS = (
    "euler", "euler_a", "heun", "dpm2", "dpm++2s_a", "dpm++2m", "dpm++2mv2", "ipndm", "ipndm_v",
    "lcm", "ddim_trailing", "tcd", "res_multistep", "res_2s", "er_sde",
)  # fmt: skip
"""Samplers by their names in stable-diffusion.cpp."""

SCHEDULERS = (
    "discrete", "karras", "exponential", "ays", "gits", "sgm_uniform", "simple", "smoothstep",
    "kl_optimal", "lcm", "bong_tangent",
)  # fmt: skip
"""Noise schedules by their names in stable-diffusion.cpp."""

Prompt: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT_CHARS)]
NegativePrompt: TypeAlias = Annotated[str, Meta(max_length=MAX_PROMPT_CHARS)]
Side: TypeAlias = Annotated[int, Meta(ge=SIZE_STEP, le=MAX_SIDE)]
NumSteps: TypeAlias = Annotated[int, Meta(ge=1, le=150)]
CfgScale: TypeAlias = Annotated[float, Meta(ge=0, le=100)]
Strength: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
ImageSeed: TypeAlias = Annotated[int, Meta(ge=-1, le=MAX_SEED)]
NumImages: TypeAlias = Annotated[int, Meta(ge=1, le=16)]
PreviewInterval: TypeAlias = Annotated[int, Meta(ge=0, le=150)]
LoraWeight: TypeAlias = Annotated[float, Meta(ge=-10, le=10)]

_LORA_TAG = re.compile(r"<lora:([^:<>]+)(?::([^:<>]*))?>")
# A weight as upstream's prompt parser reads it: it takes any run of digits and points
# and throws where they are no number, or none that a normal float holds.
_PROMPT_WEIGHT = re.compile(r":([+-]?[.\d]+)\)")
_MIN_WEIGHT = 1.2e-38
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


class Lora(msgspec.Struct, frozen=True):
    """A LoRA file and how strongly it counts."""

    path: str
    weight: float = 1.0


class Picture(msgspec.Struct, frozen=True):
    """8-bit samples: rows from the top, channels interleaved."""

    width: int
    height: int
    num_channels: int
    samples: bytes

    def __repr__(self) -> str:
        return f"<snapllm picture of {self.width}x{self.height}, {self.num_channels} channels>"


class ImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One checked request; `image_request` makes it."""

    prompt: Prompt
    negative_prompt: NegativePrompt = ""
    width: Side = 512
    height: Side = 512
    num_steps: NumSteps = 20
    cfg_scale: CfgScale = 7.0
    guidance: CfgScale = 3.5
    """Distilled guidance, for models that take it."""
    seed: ImageSeed = -1
    """The first image's; each further one's is one more. -1 = any."""
    sampler: str = ""
    scheduler: str = ""
    num_images: NumImages = 1
    clip_skip: Annotated[int, Meta(ge=-1, le=12)] = -1
    strength: Strength = 0.75
    """How much of `init_image` is painted over."""
    init_image: Picture | None = None
    mask: Picture | None = None
    loras: tuple[Lora, ...] = ()
    preview_interval: PreviewInterval = 0
    """Steps between previews; 0 = none."""
    upscale: bool = False
    """Enlarge the result with the model's upscaler."""


class ImageOptions(TypedDict, total=False):
    """The keyword arguments of `ImageModel.generate_image` that are plain values, with the
    meaning and bounds that they have in `ImageRequest`."""

    negative_prompt: str
    width: int
    height: int
    num_steps: int
    cfg_scale: float
    guidance: float
    seed: int
    sampler: str
    scheduler: str
    clip_skip: int
    strength: float
    upscale: bool


class SeveralImagesOptions(ImageOptions, total=False):
    """Those of `ImageModel.generate_images` and `ImageModel.request`."""

    num_images: int
    preview_interval: int


def image_request(**fields: Any) -> ImageRequest:
    """Makes a request from its fields; a seed of -1 is replaced by one that is chosen.

    Raises:
        InvalidRequestError: A field is unknown, out of range or does not fit another;
            `param` names it.
    """
    try:
        plain = {name: plain_number(value) for name, value in fields.items()}
        request = msgspec.convert(plain, ImageRequest)
    except msgspec.ValidationError as error:
        raise invalid_field(str(error)) from None
    unknown = fields.keys() - set(ImageRequest.__struct_fields__)
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    check(request)
    if request.seed < 0:
        request = msgspec.structs.replace(request, seed=secrets.randbelow(2**31))
    return request


def check(request: ImageRequest) -> None:
    """Checks what the types of the fields do not say.

    Raises:
        InvalidRequestError: See `image_request`.
    """
    check_text(request.prompt, "prompt")
    check_text(request.negative_prompt, "negative_prompt")
    for name in ("width", "height"):
        value = getattr(request, name)
        if value % SIZE_STEP:
            near = max(SIZE_STEP, round(value / SIZE_STEP) * SIZE_STEP)
            raise _refusal(
                name,
                f"{value} is not a multiple of {SIZE_STEP}; the nearest one is {near}",
            )
    for name in ("prompt", "negative_prompt"):
        _check_prompt(name, getattr(request, name))
    for name in ("cfg_scale", "guidance", "strength"):
        if not math.isfinite(getattr(request, name)):
            raise _refusal(name, "must be a finite number")
    for lora in request.loras:
        if not -10 <= lora.weight <= 10:
            raise _refusal("loras", f"the weight {lora.weight} is not between -10 and 10")
    _check_choice("sampler", request.sampler, SAMPLERS)
    _check_choice("scheduler", request.scheduler, SCHEDULERS)
    if request.mask is not None and request.init_image is None:
        raise _refusal("mask", "a mask needs an init_image")
    for name, picture, channels in (
        ("init_image", request.init_image, 3),
        ("mask", request.mask, 1),
    ):
        if picture is None:
            continue
        size = (picture.width, picture.height, picture.num_channels)
        if size != (request.width, request.height, channels):
            raise _refusal(name, f"is {size}, not {(request.width, request.height, channels)}")
        if len(picture.samples) != picture.width * picture.height * channels:
            raise _refusal(name, "has another number of samples than its size says")


def _refusal(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param}: {message}", param=param)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value and value not in choices:
        raise _refusal(name, f"{value!r} is none of {', '.join(choices)}")


def _check_prompt(name: str, prompt: str) -> None:
    if "\0" in prompt:
        raise _refusal(name, "must not contain the character U+0000")
    for found in _PROMPT_WEIGHT.finditer(prompt):
        text = found[1]
        number = _NUMBER.match(text)
        digits = "nan" if number is None else number[0]
        if not abs(float(digits)) <= 1000:
            raise _refusal(name, f"the weight {text!r} is not a number between -1000 and 1000")
        if abs(float(digits)) < _MIN_WEIGHT and digits.strip("+-.0"):
            raise _refusal(name, f"the weight {text!r} is too close to 0")


def take_loras(prompt: str, lora_dir: Path | None) -> tuple[str, tuple[Lora, ...]]:
    """Takes the ``<lora:name:weight>`` tags out of a prompt.

    Args:
        prompt: The prompt; a tag's weight may be left out and is 1 then.
        lora_dir: The folder that has the files, ``name.safetensors`` or ``name.gguf``.

    Returns:
        The prompt without the tags, and their files.

    Raises:
        InvalidRequestError: There is no such file, or the weight is no number.
    """
    loras = []
    for found in _LORA_TAG.finditer(prompt):
        name, weight = found[1], found[2] or "1"
        if _NUMBER.fullmatch(weight) is None:
            raise _refusal("prompt", f"the weight {weight!r} of the LoRA {name!r} is no number")
        loras.append(Lora(str(find_lora(name, lora_dir, "prompt")), float(weight)))
    return _LORA_TAG.sub("", prompt).strip() or " ", tuple(loras)


def find_lora(name: str, lora_dir: Path | None, param: str) -> Path:
    """The file of a LoRA.

    Raises:
        InvalidRequestError: There is none; `param` is the field that named it.
    """
    if lora_dir is None:
        raise _refusal(param, "this model was loaded without a folder of LoRA files")
    if name != Path(name).name or name in ("", ".", ".."):
        raise _refusal(param, f"{name!r} is not a LoRA's name")
    for suffix in (".safetensors", ".gguf"):
        path = lora_dir / (name + suffix)
        if is_file(path):
            return path
    raise _refusal(param, f"there is no LoRA {name!r}")


def parameters_text(request: ImageRequest, seed: int, model: str) -> str:
    """What an image was made with, in the form that other programs write into PNG files."""
    parts: Mapping[str, object] = {
        "Steps": request.num_steps,
        "Sampler": request.sampler or "default",
        "Schedule type": request.scheduler or "default",
        "CFG scale": request.cfg_scale,
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model": model,
    }
    if request.init_image is not None:
        parts = {**parts, "Denoising strength": request.strength}
    text = request.prompt
    if request.negative_prompt:
        text += f"\nNegative prompt: {request.negative_prompt}"
    return text + "\n" + ", ".join(f"{name}: {value}" for name, value in parts.items())
