"""Why stable-diffusion.cpp could not load a model: which of its files is at fault."""

from __future__ import annotations

import re
from collections.abc import Mapping

from snapllm.errors import InvalidModelError

_TENSOR = re.compile(r"tensor '([^']+)' (not in model file|has wrong shape.*?(?=;|$))")
_UPSCALER = re.compile(r"\b(esrgan\.hpp|upscaler\.cpp):")
_PARTS = {
    "tae.": "taesd",
    "first_stage_model.": "vae",
    "text_encoders.llm.": "llm",
    "text_encoders.clip_l.": "clip_l",
    "cond_stage_model.transformer.": "clip_l",
    "text_encoders.clip_g.": "clip_g",
    "cond_stage_model.1.": "clip_g",
    "text_encoders.t5xxl.": "t5xxl",
}
"""Parts by what their tensors' names begin with, in a model that is put together."""


def load_failure(message: str, files: Mapping[str, str]) -> InvalidModelError:
    """The error for what upstream said.

    Args:
        message: Upstream's errors.
        files: The model's files by part.
    """
    found = _TENSOR.search(message)
    if "upscaler" in files and _UPSCALER.search(message):
        # It says each of its tensors that is missing, of which there are thousands.
        said = f"tensor '{found[1]}' {_problem(found)}" if found else message
        return InvalidModelError(
            f"{files['upscaler']} is not an upscaler: {said}", param="upscaler"
        )
    part = next(
        (part for start, part in _PARTS.items() if found and found[1].startswith(start)), ""
    )
    if not found or not part or "model" in files:
        return InvalidModelError(f"the image model cannot be loaded: {message}")
    tensor = found[1]
    if part not in files:
        return InvalidModelError(
            f"the image model needs its {part}: tensor '{tensor}' is in none of its files",
            param=part,
        )
    return InvalidModelError(
        f"{files[part]} is not the {part} of the image model: tensor '{tensor}' {_problem(found)}",
        param=part,
    )


def _problem(found: re.Match[str]) -> str:
    """What is wrong with a tensor, of a file that was just named."""
    said = found[2]
    return "is not in it" if said.startswith("not") else said.replace("model file", "it")
