"""How the command line asks a running server.

Environment: SNAPLLM_API_KEY is the key of a server that asks for one (`--api-key`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO

from snapllm._checks import CONTROL_CHARACTER
from snapllm.cli.units import KEY_FORM, is_key

DEFAULT_URL = "http://127.0.0.1:6930"
# A load takes as long as the file takes to read, an ingest as long as the prefill.
_TIMEOUT_S = 3600.0


def url_option(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the option that names the server; returns a parent for the parser's actions, so
    that it may stand behind an action too."""
    parser.add_argument("--url", default=DEFAULT_URL, help="the server (%(default)s)")
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--url", default=argparse.SUPPRESS, help="the server")
    return parent


class RequestError(Exception):
    """The server refused or cannot be reached; the message says why."""


def request(
    url: str, path: str, body: Mapping[str, Any] | None = None, *, method: str | None = None
) -> dict[str, Any]:
    """The answer of a GET, or of a POST where there is a body.

    Raises:
        RequestError: The server refused, or cannot be reached.
    """
    data = None if body is None else json.dumps(body).encode()
    with _open(url, path, data, "application/json", method) as response:
        return _json(response, url)


def download(url: str, path: str, target: Path) -> int:
    """Writes the answer of a GET to a file, whole or not at all; returns its size in bytes.

    Raises:
        RequestError: The server refused, cannot be reached, or left before the end.
        OSError: The file cannot be written.
    """
    with _open(url, path, None, "", None) as response:
        try:
            return _receive_file(response, url, target.resolve())
        except OSError as error:  # of a name that nobody gave
            raise OSError(error.errno, error.strerror, str(target)) from None


def download_into(file: BinaryIO, url: str, path: str) -> int:
    """Writes the answer of a GET to an open file; returns its size in bytes. Raises as
    `download` does."""
    with _open(url, path, None, "", None) as response:
        return _receive(response, url, file)


def _receive_file(response: HTTPResponse, url: str, target: Path) -> int:
    if target.exists() and not target.is_file():  # a device or a pipe: nothing to replace
        with target.open("wb") as file:
            return _receive(response, url, file)
    scratch = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as file:
            num_bytes = _receive(response, url, file)
        scratch.replace(target)
        return num_bytes
    finally:
        scratch.unlink(missing_ok=True)


def _receive(response: HTTPResponse, url: str, file: BinaryIO) -> int:
    num_bytes = 0
    while chunk := _read_piece(response, url):
        num_bytes += file.write(chunk)
    if response.length:
        raise RequestError(
            f"the answer from {url} was cut off: {response.length} bytes of it are missing"
        )
    return num_bytes


def _read_piece(response: HTTPResponse, url: str) -> bytes:
    try:
        return response.read(1 << 20)
    except (OSError, HTTPException) as error:
        raise RequestError(f"the answer from {url} was cut off: {error}") from None


def upload(url: str, path: str, source: Path) -> dict[str, Any]:
    """The answer of a POST whose body is a file; "-" is what is piped in.

    Raises:
        RequestError: The server refused, or cannot be reached.
        OSError: The file cannot be read.
    """
    is_piped = str(source) == "-"
    with (
        contextlib.nullcontext(sys.stdin.buffer) if is_piped else source.open("rb") as given,
        _sized(given) as file,
        _open(url, path, file, "application/octet-stream", "POST") as response,
    ):
        return _json(response, url)


@contextlib.contextmanager
def _sized(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file, or one of what comes through a pipe: a body's length goes before it, and the server
    does not wait for one that comes slowly."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.tell() == 0:
        yield file
        return
    with tempfile.TemporaryFile() as whole:
        shutil.copyfileobj(file, whole)
        whole.seek(0)
        yield whole


def _json(response: HTTPResponse, url: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.load(response)
    except (OSError, ValueError, HTTPException) as error:
        raise RequestError(f"no answer from {url}: {error}") from None
    return answer


def _open(
    url: str, path: str, data: bytes | BinaryIO | None, content_type: str, method: str | None
) -> HTTPResponse:
    _check_address(url)
    wanted = urllib.request.Request(url.rstrip("/") + path, data, method=method)
    if content_type:
        wanted.add_header("Content-Type", content_type)
    if data is not None and not isinstance(data, bytes):
        wanted.add_header("Content-Length", str(os.fstat(data.fileno()).st_size))
    key = os.environ.get("SNAPLLM_API_KEY")
    if key:
        if not is_key(key):
            raise RequestError(f"SNAPLLM_API_KEY: {KEY_FORM}")
        wanted.add_header("Authorization", f"Bearer {key}")
    try:
        response: HTTPResponse = urllib.request.urlopen(wanted, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise RequestError(_explain(error)) from None
    except urllib.error.URLError as error:
        raise RequestError(f"cannot reach {url}: {error.reason}") from None
    except (OSError, ValueError, HTTPException) as error:
        raise RequestError(f"no answer from {url}: {error}") from None
    return response


def _check_address(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # raises where it is none
    except ValueError as error:
        raise RequestError(f"not an http address: {url}: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise RequestError(f"not an http address: {url}")


def _explain(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code} {error.reason}"


def _escaped(control: re.Match[str]) -> str:
    return repr(control[0])[1:-1]


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """The rows with their columns aligned; of a terminal's control characters, their escapes."""
    rows = [tuple(CONTROL_CHARACTER.sub(_escaped, cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
