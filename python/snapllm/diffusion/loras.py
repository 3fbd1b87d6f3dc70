"""LoRA files: finding them by their names, and what of them is refused.

Upstream ignores a file that it cannot read, and aborts on shapes that do not fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from snapllm._checks import is_file
from snapllm.diffusion.prompt_weights import plain_decimal
from snapllm.diffusion.traits import module_key
from snapllm.diffusion.weights_file import read_header
from snapllm.errors import InvalidModelError, InvalidRequestError, ModelFileNotFoundError

MAX_LORA_WEIGHT = 10
LoraWeight: TypeAlias = Annotated[float, Meta(ge=-MAX_LORA_WEIGHT, le=MAX_LORA_WEIGHT)]

_TAG = re.compile(r"<lora:([^:<>]+)(?::([^:<>]*))?>")

# What upstream takes for a part of a LoRA, by how names end.
_DOWN = re.compile(r"([._]lora[._]down|\.lora_A(\.default)?)\.weight$")
_UP = re.compile(r"([._]lora[._]up|\.lora_B(\.default)?)\.weight$")
_MID = re.compile(r"[._]lora[._]mid\.weight$")
_OTHER = re.compile(r"\.(diff|diff_b|hada_w[12]_[ab]|lokr_w[12](_[ab])?)$")

_STEM_PREFIX = re.compile(
    r"^(lora\.|lora_|lycoris_|lycoris\.)?(unet_|base_model\.model\.|transformer\.)?"
)
# Attention blocks by diffusers' names, and by those of the U-Nets that upstream runs.
_DIFFUSERS_ATTENTION = re.compile(r"^(down|up|mid)_(?:blocks|block)_(?:(\d+)_)?attentions_(\d+)_")


class Lora(msgspec.Struct, frozen=True):
    """A LoRA file and how strongly it counts."""

    path: str
    weight: float = 1.0


class LoraFolder(msgspec.Struct, frozen=True):
    """The folder of the LoRA files that requests to a model may name."""

    path: Path | None
    """None = there is none."""
    modules: Mapping[str, tuple[int, ...]] = {}
    """See `ModelTraits`."""

    def find(self, name: str, param: str) -> str:
        """The path of a LoRA's file, ``name.safetensors`` or ``name.gguf``.

        Raises:
            InvalidRequestError: There is none, it is damaged, or does not fit the model;
                `param` is the field that named it.
        """
        if self.path is None:
            raise _refusal(param, "this model was loaded without a folder of LoRA files")
        if name != Path(name).name or name in ("", ".", ".."):
            raise _refusal(param, f"{name!r} is not a LoRA's name")
        for suffix in (".safetensors", ".gguf"):
            path = self.path / (name + suffix)
            if is_file(path):
                if problem := _problem(path, self.modules):
                    raise _refusal(param, f"the LoRA {name!r} cannot be used: {problem}")
                return str(path)
        raise _refusal(param, f"there is no LoRA {name!r}")


def take_loras(prompt: str, folder: LoraFolder) -> tuple[str, tuple[Lora, ...]]:
    """Takes the ``<lora:name:weight>`` tags out of a prompt.

    Args:
        prompt: The prompt; a tag's weight may be left out and is 1 then.
        folder: Where the files are.

    Returns:
        The prompt without the tags, and their files.

    Raises:
        InvalidRequestError: There is no such file, see `LoraFolder.find`, or the weight is no
            number between -10 and 10; `param` is ``prompt``.
    """
    loras = []
    for found in _TAG.finditer(prompt):
        name, text = found[1], found[2] or "1"
        weight = plain_decimal(text)
        if weight is None:
            raise _refusal("prompt", f"the weight {text!r} of the LoRA {name!r} is no number")
        if not abs(weight) <= MAX_LORA_WEIGHT:
            raise _refusal(
                "prompt",
                f"the weight {text} of the LoRA {name!r} is not between -{MAX_LORA_WEIGHT} and "
                f"{MAX_LORA_WEIGHT}",
            )
        loras.append(Lora(folder.find(name, "prompt"), weight))
    return _TAG.sub("", prompt).strip() or " ", tuple(loras)


def lora_tag(name: str, weight: float) -> str:
    """The tag that means the same in a prompt."""
    return f"<lora:{name}:{Decimal(repr(weight)).normalize():f}>"


def _refusal(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param}: {message}", param=param)


def _problem(path: Path, modules: Mapping[str, tuple[int, ...]]) -> str:
    """Why a file is no LoRA for a model; empty where nothing speaks against it."""
    try:
        shapes = read_header(path).shapes
    except (InvalidModelError, ModelFileNotFoundError) as error:
        # Clients name a LoRA, not a path, and need not learn where the folder is.
        return error.message.removeprefix("cannot read ").removeprefix(f"{path}: ")
    downs, ups, mids = (_by_stem(shapes, end) for end in (_DOWN, _UP, _MID))
    if not (downs.keys() & ups.keys() or any(map(_OTHER.search, shapes))):
        return "it has no pair of a LoRA's tensors"
    for stem in downs.keys() & ups.keys():
        down, up = downs[stem], ups[stem]
        if down[0] != up[1]:
            return f"the tensors of {stem!r} have the shapes {down} and {up}, of no common rank"
        own = modules.get(_model_key(stem))
        # One with a tensor between the two has its kernel's size there.
        if own is None or stem in mids or len(own) < 2:
            continue
        if (up[0], math.prod(down[1:])) != (own[0], math.prod(own[1:])):
            return f"{stem!r} has the shapes {down} and {up}, which do not fit the model's {own}"
    return ""


def _by_stem(
    shapes: Mapping[str, tuple[int, ...]], end: re.Pattern[str]
) -> dict[str, tuple[int, ...]]:
    # A GGUF file leaves out a first dimension of 1.
    return {
        end.sub("", name): (1,) * (2 - len(shape)) + shape
        for name, shape in shapes.items()
        if end.search(name)
    }


def _model_key(stem: str) -> str:
    """What `module_key` makes of the module that a LoRA's tensors belong to, as far as the names
    of both kinds of files are alike."""
    key = module_key(_STEM_PREFIX.sub("", stem))
    found = _DIFFUSERS_ATTENTION.match(key)
    if found is None:
        return key
    kind, block, place = found[1], int(found[2] or 0), int(found[3])
    ours = {
        "down": f"input_blocks_{3 * block + place + 1}_1_",
        "up": f"output_blocks_{3 * block + place}_1_",
        "mid": "middle_block_1_",
    }[kind]
    return ours + key[found.end() :]
