"""Whether the tensors of a LoRA file fit each other and a model: upstream aborts where not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from snapllm.diffusion.traits import tensor_key

Shape: TypeAlias = tuple[int, ...]

# What upstream takes for a part of a LoRA, by how names end.
_PART = re.compile(
    r"(?:"
    r"(?P<down>[._]lora[._]down\.weight|\.lora_A(?:\.default)?\.weight)|"
    r"(?P<up>[._]lora[._]up\.weight|\.lora_B(?:\.default)?\.weight)|"
    r"(?P<mid>[._]lora[._]mid\.weight)|"
    r"\.(?P<other>diff|diff_b|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))"
    r")$"
)

_STEM_PREFIX = re.compile(
    r"^(lora\.|lora_|lycoris_|lycoris\.)?(unet_|base_model\.model\.|transformer\.)?"
)
# Attention blocks by diffusers' names, and by those of the U-Nets that upstream runs.
_DIFFUSERS_ATTENTION = re.compile(r"^(down|up|mid)_(?:blocks|block)_(?:(\d+)_)?attentions_(\d+)_")


class _Misfit(Exception):
    """The tensors of a module do not fit each other."""


def misfit(shapes: Mapping[str, Shape], tensors: Mapping[str, Shape]) -> str:
    """What keeps a file from being used as a LoRA of a model; empty where nothing is seen.

    Args:
        shapes: Of the file's tensors by name.
        tensors: Of the model's, see `ModelTraits`. What none of the file's are known to belong to
            is left to upstream, which ignores what it does not know either.
    """
    modules: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        if found := _PART.search(name):
            part = found["other"] or found.lastgroup or ""
            modules.setdefault(name[: found.start()], {})[part] = shape
    num_changes = 0
    for stem, parts in modules.items():
        try:
            for kind, change in _changes(parts):
                num_changes += 1
                own = tensors.get(_model_key(stem, kind))
                if own is not None and change is not None and not _fits(change, own):
                    return f"{stem!r} is for a {kind} of the shape {change}, the model's has {own}"
        except _Misfit as error:
            return f"the tensors of {stem!r} do not fit each other: {error}"
    return "" if num_changes else "it has no tensors of a LoRA"


def _changes(parts: Mapping[str, Shape]) -> Iterator[tuple[str, Shape | None]]:
    """The tensors that a module's parts change: weight or bias, and its shape if that is known."""
    if "down" in parts and "up" in parts:
        change = _product(parts["up"], parts["down"])
        yield "weight", None if "mid" in parts else change
    if {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"} <= parts.keys():
        if "hada_t1" in parts or "hada_t2" in parts:
            yield "weight", None
        else:
            first, second = (
                _product(parts[f"hada_{w}_a"], parts[f"hada_{w}_b"]) for w in ("w1", "w2")
            )
            if first != second:
                raise _Misfit(f"{first} and {second}")
            yield "weight", first
    first_factor, second_factor = _factor(parts, "lokr_w1"), _factor(parts, "lokr_w2")
    if first_factor and second_factor:
        known = (
            None
            if "lokr_t2" in parts
            else tuple(one * other for one, other in zip(first_factor, second_factor, strict=True))
        )
        yield "weight", known
    for part, kind in (("diff", "weight"), ("diff_b", "bias")):
        if part in parts:
            yield kind, parts[part]


def _factor(parts: Mapping[str, Shape], name: str) -> Shape | None:
    if name in parts:
        return _flat(parts[name])
    if f"{name}_a" in parts and f"{name}_b" in parts:
        if "lokr_t2" in parts:
            return (1, 1)  # its kernel is in between
        return _product(parts[f"{name}_a"], parts[f"{name}_b"])
    return None


def _product(left: Shape, right: Shape) -> Shape:
    """The shape of a product over the rank, flat; a GGUF file leaves out a first dimension of 1."""
    left, right = ((1,) * (2 - len(each)) + each for each in (left, right))
    if left[1] != right[0]:
        raise _Misfit(f"{left} and {right} have no rank in common")
    return left[0], math.prod(right[1:])


def _flat(shape: Shape) -> Shape:
    if len(shape) < 2:
        return (1, math.prod(shape))
    return (shape[0], math.prod(shape[1:]))


def _fits(change: Shape, own: Shape) -> bool:
    if math.prod(change) != math.prod(own):
        return False
    return min(len(change), len(own)) < 2 or _flat(change) == _flat(own)


def _model_key(stem: str, kind: str) -> str:
    """What `tensor_key` makes of the tensor that a module's parts change, as far as the names of
    both kinds of files are alike."""
    key = tensor_key(f"{_STEM_PREFIX.sub('', stem)}.{kind}")
    found = _DIFFUSERS_ATTENTION.match(key)
    if found is None:
        return key
    side, block, place = found[1], int(found[2] or 0), int(found[3])
    ours = {
        "down": f"input_blocks_{3 * block + place + 1}_1_",
        "up": f"output_blocks_{3 * block + place}_1_",
        "mid": "middle_block_1_",
    }[side]
    return ours + key[found.end() :]
