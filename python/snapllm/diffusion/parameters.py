"""What an image was made with, as other programs write it into PNG files and read it again."""

from __future__ import annotations

import hashlib
import json

from snapllm.diffusion.params import ImageRequest, Picture


def parameters_text(request: ImageRequest, seed: int, model: str, upscale_factor: int = 1) -> str:
    """The parameters of one image in A1111's form.

    Args:
        request: What it was made for.
        seed: Its own.
        model: Who made it.
        upscale_factor: How many times larger it is than asked for.
    """
    parts: dict[str, object] = {
        "Steps": request.num_steps,
        "Sampler": request.sampler or "default",
        "Schedule type": request.scheduler or "default",
        "CFG scale": request.cfg_scale,
        "Distilled CFG Scale": request.guidance,
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model": model,
    }
    if request.clip_skip > 0:
        parts["Clip skip"] = request.clip_skip
    if request.init_image is not None:
        parts["Denoising strength"] = request.strength
        parts["Init image hash"] = _hash(request.init_image)
    if request.mask is not None:
        parts["Mask hash"] = _hash(request.mask)
    if request.upscale:
        parts["Postprocess upscale by"] = upscale_factor
    text = request.text or request.prompt
    if request.negative_prompt:
        text += f"\nNegative prompt: {request.negative_prompt}"
    return text + "\n" + ", ".join(f"{name}: {_quoted(value)}" for name, value in parts.items())


def _quoted(value: object) -> str:
    # What reads it splits the line at commas and colons.
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text


def _hash(picture: Picture) -> str:
    """Tells pictures apart; the pixels are too many to be kept."""
    return hashlib.sha256(picture.samples).hexdigest()[:10]
