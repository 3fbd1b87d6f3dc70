"""LoRA files: finding them by their names, and what of them is refused.

Upstream ignores a file that it cannot read, and aborts on shapes that do not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from snapllm._checks import is_file
from snapllm.diffusion.lora_shapes import misfit
from snapllm.diffusion.prompt_weights import plain_decimal
from snapllm.diffusion.weights_file import read_header
from snapllm.errors import InvalidModelError, InvalidRequestError, ModelFileNotFoundError

MAX_LORA_WEIGHT = 10
LoraWeight: TypeAlias = Annotated[float, Meta(ge=-MAX_LORA_WEIGHT, le=MAX_LORA_WEIGHT)]

# Whatever begins as one: what it is missing is said, and never painted as text.
_TAG = re.compile(r"<lora:([^:<>]*)(?::([^<>]*))?>")


class Lora(msgspec.Struct, frozen=True):
    """A LoRA file and how strongly it counts."""

    path: str
    weight: float = 1.0


class LoraFolder(msgspec.Struct, frozen=True):
    """The folder of the LoRA files that requests to a model may name."""

    path: Path | None
    """None = there is none."""
    tensors: Mapping[str, tuple[int, ...]] = {}
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
                if problem := _problem(path, self.tensors):
                    raise _refusal(param, f"the LoRA {name!r} cannot be used: {problem}")
                return str(path)
        raise _refusal(param, f"there is no LoRA {name!r}")


def take_loras(prompt: str, folder: LoraFolder) -> tuple[str, tuple[Lora, ...]]:
    """Takes the ``<lora:name:weight>`` tags out of a prompt.

    Args:
        prompt: The prompt; a tag's weight may be left out and is 1 then.
        folder: Where the files are.

    Returns:
        The prompt without the tags, and their files, see `summed`.

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
    return _TAG.sub("", prompt).strip() or " ", summed(loras, "prompt")


def summed(loras: Iterable[Lora], param: str) -> tuple[Lora, ...]:
    """Each file once, with all of its weights together, in the order of their paths.

    Upstream's library keeps the last weight of a file that is given several times; its
    command-line tool adds them up, in this order, before.

    Raises:
        InvalidRequestError: A sum is not between -10 and 10; `param` is the field at fault.
    """
    weights: dict[str, float] = {}
    for lora in loras:
        weights[lora.path] = weights.get(lora.path, 0.0) + lora.weight
    for path, weight in weights.items():
        if not abs(weight) <= MAX_LORA_WEIGHT:
            raise _refusal(
                param,
                f"the weights of the LoRA {Path(path).stem!r} are {weight:g} together, which is "
                f"not between -{MAX_LORA_WEIGHT} and {MAX_LORA_WEIGHT}",
            )
    return tuple(Lora(path, weights[path]) for path in sorted(weights))


def lora_tag(name: str, weight: float) -> str:
    """The tag that means the same in a prompt."""
    return f"<lora:{name}:{Decimal(repr(weight)).normalize():f}>"


def _refusal(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param}: {message}", param=param)


def _problem(path: Path, tensors: Mapping[str, tuple[int, ...]]) -> str:
    """Why a file is no LoRA for a model; empty where nothing speaks against it."""
    try:
        shapes = read_header(path).shapes
    except (InvalidModelError, ModelFileNotFoundError) as error:
        # Clients name a LoRA, not a path, and need not learn where the folder is.
        return error.message.removeprefix("cannot read ").removeprefix(f"{path}: ")
    return misfit(shapes, tensors)
