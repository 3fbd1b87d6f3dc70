"""What is told of a loaded image model."""

from __future__ import annotations

from typing import Literal

import msgspec

from snapllm.diffusion.counts import ImageCounts


class ImageModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded image model is."""

    id: str
    path: str
    """Its main file."""
    files: dict[str, str]
    """All its files by part."""
    file_bytes: int
    memory_bytes: int
    """What its worker has held at most, so far: of a GPU's memory where it computes on one."""
    gpu_bytes: int
    """The same; 0 where it computes on none."""
    load_ms: float
    loaded_at_ms: int
    num_threads: int
    upscale_factor: int
    """How many times larger an upscaled image is; 1 = it has no upscaler."""
    num_waiting: int
    num_running: int
    num_starts: int
    """How often its worker was started; more than once = it has died, or was evicted."""
    state: Literal["resident", "evicted"]
    pinned: bool
    counts: ImageCounts
