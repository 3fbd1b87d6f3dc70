"""The files that an image model consists of."""

from __future__ import annotations

PARTS = (
    "model",
    "diffusion_model",
    "vae",
    "taesd",
    "clip_l",
    "clip_g",
    "t5xxl",
    "llm",
    "upscaler",
)
"""The files a model may consist of: all in one as ``model``, or its parts."""
EXTRA_PARTS = tuple(part for part in PARTS if part not in ("model", "diffusion_model"))
"""Those that come beside a first file."""
