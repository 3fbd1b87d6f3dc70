"""What an image model is loaded with."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, cast

import msgspec
from msgspec import Meta
from typing_extensions import TypedDict

from snapllm._checks import check_path, convert, is_folder, plain_number
from snapllm._numbers import INT32_MAX
from snapllm.diffusion.parts import EXTRA_PARTS
from snapllm.errors import InvalidRequestError
from snapllm.params import MAX_KEEP_ALIVE_S


class LoadImageOptions(TypedDict, total=False):
    """The keyword arguments of `Engine.load_diffusion`."""

    num_threads: int
    """Threads to compute with; 0 = as many as the engine's."""
    flash_attention: bool
    """Use flash attention in the diffusion model."""
    lora_dir: str | PathLike[str] | None
    """Folder of the LoRA files that requests may name."""
    max_queued: int
    """Requests that wait before `QueueFullError`; 32."""
    pinned: bool
    """Exempt it from eviction."""
    keep_alive_s: float
    """Seconds after which the unused model is evicted; 0 = never for that reason, -1 = as the
    engine says. Default -1."""
    isolated: bool
    """Compute in a process of its own: True. Otherwise a crash of the model ends this one."""
    vae: str | PathLike[str]
    """The autoencoder."""
    taesd: str | PathLike[str]
    """A tiny autoencoder in its place: faster, a little coarser."""
    clip_l: str | PathLike[str]
    clip_g: str | PathLike[str]
    t5xxl: str | PathLike[str]
    llm: str | PathLike[str]
    """The text encoders that the model's family has."""
    upscaler: str | PathLike[str]
    """An ESRGAN that enlarges images."""


class ImageModelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The same, checked; `read_options` makes it."""

    num_threads: Annotated[int, Meta(ge=0, le=512)] = 0
    flash_attention: bool = False
    lora_dir: Path | None = None
    max_queued: Annotated[int, Meta(ge=1, le=INT32_MAX)] = 32
    pinned: bool = False
    keep_alive_s: Annotated[float, Meta(ge=0, le=MAX_KEEP_ALIVE_S)] | None = None
    isolated: bool = True
    parts: Mapping[str, Path] = {}
    """The files beside the first one, by part."""

    def agrees(self, loaded: ImageModelOptions) -> bool:
        """Whether a load with these asks for nothing that the model has not that was `loaded`;
        what is left at its default asks for nothing. Pin and keep-alive can change
        meanwhile."""
        default = ImageModelOptions()
        names = ("num_threads", "flash_attention", "lora_dir", "max_queued", "isolated")
        return all(
            getattr(self, name) in (getattr(default, name), getattr(loaded, name)) for name in names
        ) and all(loaded.parts.get(part) == path for part, path in self.parts.items())


def read_options(options: LoadImageOptions) -> ImageModelOptions:
    """Checks the options of a load; paths are made absolute.

    Raises:
        InvalidRequestError: One is of the wrong type, or out of range; `param` names it.
    """
    unknown = options.keys() - set(LoadImageOptions.__annotations__)
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    paths: dict[str, Path] = {}
    for name in (*EXTRA_PARTS, "lora_dir"):
        given = options.get(name)
        # Absolute: the worker may be started again when the program is in another folder.
        if given is not None and (text := check_path(cast(str, given), name)):
            paths[name] = Path(text)
    lora_dir = paths.pop("lora_dir", None)
    if lora_dir is not None and not is_folder(lora_dir):
        raise InvalidRequestError(f"lora_dir: {lora_dir} is not a folder", param="lora_dir")
    plain = {
        name: plain_number(value)
        for name, value in options.items()
        if name not in (*EXTRA_PARTS, "lora_dir")
    }
    if plain.get("keep_alive_s") == -1:
        del plain["keep_alive_s"]  # the engine's
    checked = convert(plain, ImageModelOptions)
    return msgspec.structs.replace(checked, lora_dir=lora_dir, parts=paths)
