"""Image generation: models, requests, and the worker processes that carry them out."""

from __future__ import annotations

from snapllm.diffusion.image_model import ImageModel
from snapllm.diffusion.info import ImageModelInfo
from snapllm.diffusion.job import (
    ImageJob,
    ImagePreview,
    ImageQueued,
    ImageResult,
    ImageStep,
)
from snapllm.diffusion.params import ImageRequest

__all__ = [
    "ImageJob",
    "ImageModel",
    "ImageModelInfo",
    "ImagePreview",
    "ImageQueued",
    "ImageRequest",
    "ImageResult",
    "ImageStep",
]
