"""Image models over stable-diffusion.cpp; use the snapllm package."""

from collections.abc import Callable
from typing import Any

import numpy as np

class Cancelled(Exception): ...

class ModelFiles:
    model: str
    diffusion_model: str
    vae: str
    taesd: str
    clip_l: str
    clip_g: str
    t5xxl: str
    llm: str
    upscaler: str

class ImageRequest:
    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_steps: int
    cfg_scale: float
    guidance: float
    strength: float
    seed: int
    num_images: int
    clip_skip: int
    sampler: str
    scheduler: str
    preview_interval: int
    def set_init_image(self, image: np.ndarray[Any, np.dtype[np.uint8]]) -> None: ...
    def set_mask(self, mask: np.ndarray[Any, np.dtype[np.uint8]]) -> None: ...
    def add_lora(self, path: str, weight: float) -> None: ...

class ImageModel:
    def __init__(
        self, files: ModelFiles, num_threads: int, flash_attention: bool = False
    ) -> None: ...
    def generate(
        self,
        request: ImageRequest,
        on_step: Callable[[int, int, float], bool],
        on_preview: Callable[[int, np.ndarray[Any, np.dtype[np.uint8]]], object] | None = None,
    ) -> list[np.ndarray[Any, np.dtype[np.uint8]]]: ...
    def upscale(
        self, image: np.ndarray[Any, np.dtype[np.uint8]]
    ) -> np.ndarray[Any, np.dtype[np.uint8]]: ...
    @property
    def device_bytes(self) -> int: ...
    @property
    def upscale_factor(self) -> int: ...

def sampler_names() -> list[str]: ...
def scheduler_names() -> list[str]: ...
