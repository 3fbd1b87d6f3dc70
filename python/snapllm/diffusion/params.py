"""What an image request asks for, and what of it is refused.

stable-diffusion.cpp aborts, hangs or crashes on values out of range, so everything is
checked here, for every way in.
"""

from __future__ import annotations

import math
import secrets
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta
from typing_extensions import TypedDict

from snapllm._checks import check_text, invalid_field, plain_number
from snapllm.diffusion.loras import MAX_LORA_WEIGHT, Lora
from snapllm.diffusion.prompt_weights import check_weights
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

# Schedulers that upstream has no schedule of a single step from: it reads outside of a table, or
# divides by the steps minus one, and the picture is one flat colour. `strength` does not matter:
# a schedule is always made for all steps, of which it leaves the first out.
_SCHEDULERS_OF_SEVERAL_STEPS = ("karras", "exponential", "gits")


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
    text: str = ""
    """The prompt as it was sent, with the tags of all LoRAs; for whoever reads the image's
    parameters. Empty = `prompt`."""
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
        if not abs(lora.weight) <= MAX_LORA_WEIGHT:
            raise _refusal("loras", f"the weight {lora.weight} is not between -10 and 10")
    _check_choice("sampler", request.sampler, SAMPLERS)
    _check_choice("scheduler", request.scheduler, SCHEDULERS)
    if request.num_steps < 2 and request.scheduler in _SCHEDULERS_OF_SEVERAL_STEPS:
        raise _refusal(
            "num_steps", f"the scheduler {request.scheduler!r} makes schedules of 2 steps or more"
        )
    if request.seed + request.num_images - 1 > MAX_SEED:
        raise _refusal(
            "seed",
            f"that of the last of {request.num_images} images would be more than {MAX_SEED}",
        )
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
    check_weights(name, prompt)
