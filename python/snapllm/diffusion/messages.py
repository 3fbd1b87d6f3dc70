"""What an engine and its image worker say to each other.

Frames over a pair of pipes: four bytes of length, little-endian, then one message as
MessagePack, an array that begins with its type's name.
"""

from __future__ import annotations

from typing import IO, TypeAlias

import msgspec

from snapllm.diffusion.params import MAX_RESULT_BYTES, ImageRequest, Picture

MAX_FRAME_BYTES = MAX_RESULT_BYTES + (1 << 20)


class Load(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To the worker, first and once: load this model."""

    files: dict[str, str]
    num_threads: int
    flash_attention: bool


class Generate(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To the worker: make these images. One at a time."""

    job: int
    request: ImageRequest


class Cancel(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To the worker: stop this job at its next step."""

    job: int


class Ping(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """To the worker: are you there?"""


class Loaded(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From the worker: the model is ready."""

    load_ms: float
    upscale_factor: int
    device_bytes: int = 0
    """What it has taken of a device's memory at most, so far; 0 on a CPU."""


class Step(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From the worker: this many steps are done."""

    job: int
    step: int
    num_steps: int
    seconds_per_step: float


class Preview(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From the worker: a rough picture of what is there by now."""

    job: int
    step: int
    picture: Picture


class Done(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From the worker: the images of a job."""

    job: int
    pictures: list[Picture]
    seconds: float
    device_bytes: int = 0


class Failed(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From the worker: the job, or the load if there is none, came to nothing."""

    job: int | None
    message: str
    is_cancelled: bool = False


class Pong(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """From the worker: yes."""


ToWorker: TypeAlias = Load | Generate | Cancel | Ping
FromWorker: TypeAlias = Loaded | Step | Preview | Done | Failed | Pong

_encoder = msgspec.msgpack.Encoder()
to_worker_decoder = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder = msgspec.msgpack.Decoder(FromWorker)


def write(pipe: IO[bytes], message: ToWorker | FromWorker) -> None:
    """Writes one frame; the caller sees to it that frames do not mix.

    Raises:
        OSError: The other side is gone.
    """
    data = _encoder.encode(message)
    pipe.write(len(data).to_bytes(4, "little") + data)
    pipe.flush()


def read(pipe: IO[bytes]) -> bytes | None:
    """Reads one frame; None when the other side is gone, or writes what is no frame."""
    head = pipe.read(4)
    if len(head) < 4:
        return None
    size = int.from_bytes(head, "little")
    if size > MAX_FRAME_BYTES:
        return None
    data = pipe.read(size)
    return data if len(data) == size else None
