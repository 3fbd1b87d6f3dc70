"""What of a loaded image model decides whether a request fits it, as its files' headers say."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from snapllm.diffusion.weights_file import WeightsFile

_UNET = re.compile(r"(^|\.)input_blocks\.|^unet\.down_blocks\.")
_SECOND_ENCODER = ("conditioner.embedders.1", "cond_stage_model.1")
_SD2_WIDTH = 1024
_MODEL_PREFIX = re.compile(r"^(model\.)?(diffusion_model|unet)\.")


class ModelTraits(msgspec.Struct, frozen=True):
    """`traits_of` makes it."""

    takes_ays: bool = True
    """Whether the scheduler ``ays`` has a table for its family."""
    modules: Mapping[str, tuple[int, ...]] = {}
    """The shapes of the diffusion model's weights by module, with ``_`` in place of dots."""


def traits_of(headers: Mapping[str, WeightsFile]) -> ModelTraits:
    """Args: headers: Those of a model's files by part."""
    main = headers.get("model") or headers["diffusion_model"]
    modules = {
        module_key(name.removesuffix(".weight")): shape
        for name, shape in main.shapes.items()
        if name.endswith(".weight")
    }
    return ModelTraits(_takes_ays(headers, main), modules)


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


def module_key(name: str) -> str:
    """A module of a diffusion model, without what files may put before its name; LoRA files write
    ``_`` where models have dots."""
    return _MODEL_PREFIX.sub("", name).replace(".", "_")
