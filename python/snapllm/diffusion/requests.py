"""Makes a request for a certain model: what does not fit that is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from snapllm._checks import as_dict, check_text, convert, plain_number
from snapllm.diffusion.loras import Lora, LoraFolder, LoraWeight, lora_tag, summed, take_loras
from snapllm.diffusion.params import (
    MAX_RESULT_BYTES,
    ImageRequest,
    SeveralImagesOptions,
    check,
    image_request,
)
from snapllm.diffusion.pictures import read_picture
from snapllm.diffusion.traits import ModelTraits
from snapllm.errors import InvalidRequestError


def make_request(
    prompt: str,
    options: SeveralImagesOptions,
    *,
    init_image: Any,
    mask: Any,
    loras: Mapping[str, float] | None,
    lora_dir: Path | None,
    traits: ModelTraits,
    upscale_factor: int,
) -> ImageRequest:
    """Makes a checked request; see `ImageModel.generate_image` for what is asked for.

    Args:
        prompt: What to show.
        options: What is a plain value.
        init_image: An image to start from.
        mask: Where that is painted over.
        loras: LoRA files by name, with their weights.
        lora_dir: Their folder.
        traits: What the model takes.
        upscale_factor: What its upscaler does; 1 = it has none.

    Raises:
        InvalidRequestError: Something is wrong, or does not fit the model; `param` names it.
    """
    sized = image_request(prompt=prompt, **options)
    more: dict[str, Any] = {}
    for name, source, mode in (("init_image", init_image, "RGB"), ("mask", mask, "L")):
        if source is not None:
            more[name] = read_picture(source, name, sized.width, sized.height, mode)
    folder = LoraFolder(lora_dir, traits.tensors)
    more["prompt"], tagged = take_loras(prompt, folder)
    weights = {
        check_text(name, "loras"): convert(plain_number(weight), LoraWeight, "loras")
        for name, weight in as_dict(loras or {}, "loras").items()
    }
    named = tuple(Lora(folder.find(name, "loras"), weight) for name, weight in weights.items())
    tags = (lora_tag(name, weight) for name, weight in weights.items())
    request = msgspec.structs.replace(
        sized, loras=summed(tagged + named, "loras"), text=" ".join((prompt, *tags)), **more
    )
    check(request)
    if request.scheduler == "ays" and not traits.takes_ays:
        raise InvalidRequestError(
            "scheduler: 'ays' has noise levels for SD 1 and SDXL only", param="scheduler"
        )
    if request.upscale:
        _check_upscaled(request, upscale_factor)
    return request


def _check_upscaled(request: ImageRequest, factor: int) -> None:
    """Raises `InvalidRequestError` where there is no upscaler, or too much would come of it."""
    if factor == 1:
        raise InvalidRequestError(
            "upscale: this model was loaded without an upscaler", param="upscale"
        )
    num_bytes = request.num_images * request.width * factor * request.height * factor * 3
    if num_bytes > MAX_RESULT_BYTES:
        raise InvalidRequestError(
            f"upscale: the images would have {num_bytes} bytes, at most {MAX_RESULT_BYTES} "
            "are allowed: ask for fewer or smaller ones",
            param="upscale",
        )
