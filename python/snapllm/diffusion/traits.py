"""What of a loaded image model decides whether a request fits it, as its files' headers say."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from snapllm.diffusion.weights_file import WeightsFile

_UNET = re.compile(r"(^|\.)input_blocks\.|^unet\.down_blocks\.")
_SECOND_ENCODER = ("conditioner.embedders.1", "cond_stage_model.1")
_SD2_WIDTH = 1024
_PART_PREFIXES = {"clip_l": "te1.", "clip_g": "te2.", "t5xxl": "te3.", "llm": "llm."}
# What names begin with, in files of models and of LoRAs, and what that is here: nothing for the
# diffusion model.
_PREFIXES = [
    (re.compile(pattern), key)
    for pattern, key in (
        (r"(model\.)?(diffusion_model|unet)\.", ""),
        (r"(cond_stage_model|conditioner\.embedders)\.1\.transformer\.", "te2."),
        (r"(cond_stage_model|conditioner\.embedders\.0)\.transformer\.", "te1."),
        (r"text_encoders\.clip_l\.transformer\.|te1?[._]|text_encoder[._](?!2[._])", "te1."),
        (r"text_encoders\.clip_g\.transformer\.|te2[._]|text_encoder[._]2[._]", "te2."),
        (r"text_encoders\.t5xxl\.transformer\.|te3[._]", "te3."),
        (r"text_encoders\.llm\.", "llm."),
    )
]


class ModelTraits(msgspec.Struct, frozen=True):
    """`traits_of` makes it."""

    takes_ays: bool = True
    """Whether the scheduler ``ays`` has a table for its family."""
    tensors: Mapping[str, tuple[int, ...]] = {}
    """The shapes of diffusion model and text encoders, by what `tensor_key` makes of names."""


def traits_of(headers: Mapping[str, WeightsFile]) -> ModelTraits:
    """Args: headers: Those of a model's files by part."""
    main = headers.get("model") or headers["diffusion_model"]
    tensors = {
        tensor_key(f"{_PART_PREFIXES.get(part, '')}{name}"): shape
        for part, header in headers.items()
        if part in ("model", "diffusion_model", *_PART_PREFIXES)
        for name, shape in header.shapes.items()
    }
    return ModelTraits(_takes_ays(headers, main), tensors)


def _takes_ays(headers: Mapping[str, WeightsFile], main: WeightsFile) -> bool:
    # Upstream has tables for SD 1, SDXL and SVD. For SD 2 it reads an empty one, for others it
    # says an error and goes on without noise levels.
    if not any(_UNET.search(name) for name in main.shapes):
        return False
    if "clip_g" in headers or any(name.startswith(_SECOND_ENCODER) for name in main.shapes):
        return True
    widths = {
        shape[-1]
        for header in (main, *headers.values())
        for name, shape in header.shapes.items()
        if name.endswith("token_embedding.weight")
    }
    return _SD2_WIDTH not in widths


def tensor_key(name: str) -> str:
    """A tensor's name in one form for all files: which part it is of, then ``_`` in place of dots,
    as LoRA files have it."""
    return next(
        (key + name[found.end() :] for each, key in _PREFIXES if (found := each.match(name))), name
    ).replace(".", "_")
