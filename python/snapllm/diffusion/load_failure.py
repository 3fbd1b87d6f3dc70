"""Why stable-diffusion.cpp could not load a model: which of its files is at fault."""

from __future__ import annotations

import re
from collections.abc import Mapping

from snapllm.errors import InvalidModelError

_TENSOR = re.compile(r"tensor '([^']+)' (not in model file|has wrong shape.*?(?=;|$))")
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
    part = next(
        (part for start, part in _PARTS.items() if found and found[1].startswith(start)), ""
    )
    if not found or not part or "model" in files:
        return InvalidModelError(f"the image model cannot be loaded: {message}")
    tensor, problem = found[1], found[2]
    if part not in files:
        return InvalidModelError(
            f"the image model needs its {part}: tensor '{tensor}' is in none of its files",
            param=part,
        )
    problem = "is not in it" if problem.startswith("not") else problem.replace("model file", "it")
    return InvalidModelError(
        f"{files[part]} is not the {part} of the image model: tensor '{tensor}' {problem}",
        param=part,
    )
