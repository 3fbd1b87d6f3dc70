"""Reads the header of a weights file and checks all of it.

stable-diffusion.cpp trusts what a header says and dies on what it should not have
trusted, so a file is only handed over when every tensor has a known type, real
dimensions, and its data inside of the file.

Formats: GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) and safetensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from snapllm.errors import InvalidModelError, InvalidRequestError, ModelFileNotFoundError

MAX_HEADER_BYTES = 256 << 20
MAX_TENSORS = 100_000
MAX_DIMS = 5
MAX_ELEMENTS = 1 << 40

# Bytes a value takes, by safetensors type.
_SAFETENSORS_TYPES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4,
    "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip

# Values and bytes of a block, by GGML type.
_GGML_TYPES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

# struct formats of GGUF's scalar value types.
_GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q",
                 11: "q", 12: "d"}  # fmt: skip
_GGUF_STRING, _GGUF_ARRAY = 8, 9

# What tensors of image models are called, and of nothing else.
_IMAGE_MARKS = (
    "model.diffusion_model.",
    "diffusion_model.",
    "first_stage_model.",
    "double_blocks.",
    "joint_blocks.",
    "single_blocks.",
    "input_blocks.",
    "middle_block.",
    "transformer_blocks.0.",
    "cond_stage_model.",
    "cap_embedder.",
)
_WHOLE_MARKS = ("first_stage_model.", "cond_stage_model.", "text_encoders.", "vae.")


class WeightsFile(msgspec.Struct, frozen=True):
    """A checked header."""

    path: Path
    num_bytes: int
    architecture: str
    """GGUF's general.architecture; empty when there is none."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of the tensors by their names; the dimension that is last in memory comes last."""

    @property
    def is_image_model(self) -> bool:
        """Whether it makes images, or is the part of a model that does."""
        return any(name.startswith(_IMAGE_MARKS) for name in self.shapes)

    @property
    def is_whole(self) -> bool:
        """Whether encoders and autoencoder are in it too, not the diffusion model alone."""
        return any(name.startswith(_WHOLE_MARKS) for name in self.shapes)


def read_header(path: Path) -> WeightsFile:
    """Reads and checks a file's header.

    Raises:
        ModelFileNotFoundError: The file does not exist or cannot be read.
        InvalidModelError: It is neither GGUF nor safetensors, or something in its header
            is not as it must be.
        InvalidRequestError: It cannot be a path.
    """
    if "\0" in str(path):
        raise InvalidRequestError("the path of a model's file holds a NUL")
    try:
        with _open(path) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            if file.read(4) == b"GGUF":
                architecture, shapes = _read_gguf(file, num_bytes)
            else:
                file.seek(0)
                architecture, shapes = "", _read_safetensors(file, num_bytes)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileNotFoundError(
            f"cannot read {path}: {reason}", filename=str(path), number=error.errno or errno.ENOENT
        ) from None
    except _Bad as error:
        raise InvalidModelError(f"{path}: {error}") from None
    if not shapes:
        raise InvalidModelError(f"{path}: the file has no tensors")
    return WeightsFile(path, num_bytes, architecture, shapes)


def is_image_file(path: Path) -> bool:
    """Whether a file is an image model, or part of one, as far as its header says.

    A language model is told by its vocabulary, before much of the file is read.
    """
    if "\0" in str(path):
        return False  # whoever loads it says so
    try:
        with _open(path) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            if file.read(4) == b"GGUF" and _has_vocabulary(file, num_bytes):
                return False
        return read_header(path).is_image_model
    except (OSError, _Bad, InvalidModelError, ModelFileNotFoundError):
        return False


class _Bad(Exception):
    """The header is wrong."""


def _open(path: Path) -> BinaryIO:
    # Before it is opened: a named pipe would wait there for somebody who writes.
    if not stat.S_ISREG(path.stat().st_mode):
        raise _Bad("not a regular file")
    return path.open("rb")


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def _read_safetensors(file: BinaryIO, num_bytes: int) -> dict[str, tuple[int, ...]]:
    head = file.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= size <= min(num_bytes - 8, MAX_HEADER_BYTES):
        raise _Bad("neither a GGUF nor a safetensors file")
    text = file.read(size)
    try:
        header = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Bad("neither a GGUF nor a safetensors file") from None
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _Bad(f"more than {MAX_TENSORS} tensors")
    spans, shapes = [], {}
    for name, raw in header.items():
        try:
            tensor = msgspec.json.decode(raw, type=_Tensor)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _Bad(f"tensor {name!r}: {error}") from None
        value_bytes = _SAFETENSORS_TYPES.get(tensor.dtype)
        if value_bytes is None:
            raise _Bad(f"tensor {name!r} has the unknown type {tensor.dtype!r}")
        count = _num_elements(name, tensor.shape)
        start, end = tensor.data_offsets
        if not 0 <= start <= end <= num_bytes - 8 - size:
            raise _Bad(f"the data of tensor {name!r} is outside of the file")
        if end - start != count * value_bytes:
            raise _Bad(f"tensor {name!r} has another size than its shape says")
        spans.append((start, end))
        shapes[name] = tuple(tensor.shape)
    spans.sort()
    if any(end > start for (_, end), (start, _) in itertools.pairwise(spans)):
        raise _Bad("tensors overlap")
    return shapes


def _num_elements(name: str, shape: Sequence[int]) -> int:
    if len(shape) > MAX_DIMS:
        raise _Bad(f"tensor {name!r} has more than {MAX_DIMS} dimensions")
    if any(length < 1 for length in shape):
        raise _Bad(f"tensor {name!r} has an empty dimension")
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise _Bad(f"tensor {name!r} is too large")
    return count


class _GgufReader:
    def __init__(self, file: BinaryIO, num_bytes: int) -> None:
        self._file, self._num_bytes = file, min(num_bytes, MAX_HEADER_BYTES)

    def bytes(self, count: int) -> bytes:
        if count > self._num_bytes - self._file.tell():
            raise _Bad("the file is truncated")
        data = self._file.read(count)
        if len(data) < count:
            raise _Bad("the file is truncated")
        return data

    def scalar(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self.bytes(struct.calcsize("<" + kind)))[0]

    def string(self) -> str:
        return self.bytes(self.scalar("Q")).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _GGUF_STRING:
            return self.string()
        if kind == _GGUF_ARRAY:
            item, count = self.scalar("I"), self.scalar("Q")
            if depth > 4 or count > self._num_bytes:
                raise _Bad("an array of the metadata is too large")
            if item in _GGUF_SCALARS:
                self.bytes(count * struct.calcsize("<" + _GGUF_SCALARS[item]))
            else:
                for _ in range(count):
                    self.value(item, depth + 1)
            return None
        if kind not in _GGUF_SCALARS:
            raise _Bad(f"the metadata has a value of the unknown type {kind}")
        return self.scalar(_GGUF_SCALARS[kind])

    def position(self) -> int:
        return self._file.tell()


def _has_vocabulary(file: BinaryIO, num_bytes: int) -> bool:
    reader = _GgufReader(file, num_bytes)
    reader.scalar("I"), reader.scalar("Q")
    for _ in range(min(reader.scalar("Q"), MAX_TENSORS)):
        if reader.string().startswith("tokenizer."):
            return True
        reader.value(reader.scalar("I"))
    return False


def _read_gguf(file: BinaryIO, num_bytes: int) -> tuple[str, dict[str, tuple[int, ...]]]:
    reader = _GgufReader(file, num_bytes)
    version = reader.scalar("I")
    if version not in (2, 3):
        raise _Bad(f"GGUF version {version} is not supported")
    num_tensors, num_values = reader.scalar("Q"), reader.scalar("Q")
    if num_tensors > MAX_TENSORS or num_values > MAX_TENSORS:
        raise _Bad("the header counts too many tensors or values")
    architecture, alignment = "", 32
    for _ in range(num_values):
        key, kind = reader.string(), reader.scalar("I")
        value = reader.value(kind)
        if key == "general.architecture" and isinstance(value, str):
            architecture = value
        if key == "general.alignment":
            alignment = value
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment % 8:
        raise _Bad("general.alignment is wrong")
    tensors: dict[str, tuple[int, int]] = {}
    shapes = {}
    for _ in range(num_tensors):
        name, num_dims = reader.string(), reader.scalar("I")
        if not 1 <= num_dims <= 4:
            raise _Bad(f"tensor {name!r} has {num_dims} dimensions")
        shape = [reader.scalar("Q") for _ in range(num_dims)]
        kind, offset = reader.scalar("I"), reader.scalar("Q")
        if name in tensors:
            raise _Bad(f"tensor {name!r} is there twice")
        if kind not in _GGML_TYPES:
            raise _Bad(f"tensor {name!r} has the unknown type {kind}")
        values, block_bytes = _GGML_TYPES[kind]
        count = _num_elements(name, shape)
        if shape[0] % values:
            raise _Bad(f"tensor {name!r} does not divide into blocks of its type")
        if offset % alignment:
            raise _Bad(f"tensor {name!r} is not aligned")
        tensors[name] = (offset, count // values * block_bytes)
        shapes[name] = tuple(reversed(shape))
    start = -(-reader.position() // alignment) * alignment
    for name, (offset, size) in tensors.items():
        if start + offset + size > num_bytes:
            raise _Bad(f"the data of tensor {name!r} is outside of the file")
    return architecture, shapes
