"""Numbers, sizes, times, paths and keys as people write them on a command line."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from snapllm._checks import check_host
from snapllm.diffusion.parts import EXTRA_PARTS
from snapllm.errors import InvalidRequestError

USAGE_ERROR = 2
"""argparse's exit status, for what it cannot find by itself too."""

_BYTES = {
    "": 1,
    "b": 1,
    **{unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb"), 1)},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), 1)},
}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\sA-Z/?#@*]+")
_KEY = re.compile(r"[!-~]+")
KEY_FORM = "expected printable ASCII without blanks"
"""What is said of a key that is none: never the key."""
_MAX_KEY_FILE_BYTES = 1 << 20
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-zA-Z]*)")


def _parse(text: str, units: dict[str, int], example: str) -> float:
    match = _AMOUNT.fullmatch(text.strip())
    factor = units.get(match["unit"].lower()) if match else None
    if match is None or factor is None:
        raise argparse.ArgumentTypeError(f"expected something like {example}, not {text!r}")
    value = float(match["number"]) * factor
    if not math.isfinite(value) or value >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is too large")
    return value


def parse_bytes(text: str) -> int:
    """Bytes of ``8GiB``, ``800MB`` or a plain number of bytes."""
    return int(_parse(text, _BYTES, "8GiB"))


def parse_seconds(text: str) -> float:
    """Seconds of ``90s``, ``10m``, ``2h``, ``1d`` or a plain number of seconds."""
    return _parse(text, _SECONDS, "10m")


def parse_seconds_within(most: float, text: str) -> float:
    """`parse_seconds` of at most so many."""
    seconds = parse_seconds(text)
    if seconds > most:
        raise argparse.ArgumentTypeError(f"expected at most {most} seconds, not {text!r}")
    return seconds


def parse_within(type_: Any) -> Callable[[str], Any]:
    """Reads a number within the bounds that a type of the API's has."""
    number, bounds = get_args(type_)

    def parse(text: str) -> Any:
        with suppress(ValueError):
            value = number(text)
            if bounds.ge <= value <= bounds.le:
                return value
        raise argparse.ArgumentTypeError(
            f"expected a number from {bounds.ge} to {bounds.le}, not {text!r}"
        )

    return parse


def parse_text(text: str) -> str:
    """A text that is not empty, as a variable of the shell's that is not set would be."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def parse_path(text: str) -> Path:
    """A path that is not empty: that would be the current directory."""
    return expand_home(parse_text(text))


def expand_home(text: str) -> Path:
    """The path, whose ``~`` shells leave as it is behind a ``=``; as they do of an unknown user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_key(text: str) -> bool:
    """Whether all clients can send it as a header, and none drops a part of it."""
    return _KEY.fullmatch(text) is not None


def parse_key(text: str) -> str:
    """An API key; errors do not show it."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty: that would let everybody in")
    if not is_key(text):
        raise argparse.ArgumentTypeError(KEY_FORM)
    return text


def parse_key_file(text: str) -> tuple[str, ...]:
    """The API keys of a file, one a line; errors do not show them."""
    try:
        # May be a pipe: `<(command)`.
        with parse_path(text).open("rb") as file:
            data = file.read(_MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: {error.strerror}") from None
    if len(data) > _MAX_KEY_FILE_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} has more than {_MAX_KEY_FILE_BYTES} bytes")
    lines = data.decode("ascii", "replace").splitlines()
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:
        raise argparse.ArgumentTypeError(f"{text!r} holds no key: that would let everybody in")
    for number, key in enumerate(keys, 1):
        if not is_key(key):
            raise argparse.ArgumentTypeError(f"key {number} of {text!r}: {KEY_FORM}")
    return keys


def parse_listen_host(text: str) -> str:
    """A host to listen on; an IPv6 address may stand in brackets, as in URLs."""
    is_bracketed = text.startswith("[") and text.endswith("]")
    return parse_text(text[1:-1] if is_bracketed else text)


def parse_host(text: str) -> str:
    """A host, or ``*.`` and a domain; no URL."""
    try:
        return check_host(text, "host")
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error).partition(": ")[2]) from None


def parse_origin(text: str) -> str:
    """An origin as browsers send it, or ``*``."""
    if text not in ("*", "null") and not _ORIGIN.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"expected * or an origin as https://example.org:8443, in small letters and without a "
            f"path, not {text!r}"
        )
    return text


def parse_image_part(text: str) -> tuple[str, Path]:
    """Reads ``PART=PATH``: a further file of an image model."""
    part, separator, path = text.partition("=")
    if not separator or not path:
        raise argparse.ArgumentTypeError(f"expected PART=PATH, not {text!r}")
    if part not in EXTRA_PARTS:
        raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(EXTRA_PARTS)}")
    return part, expand_home(path)
