"""Upstream's own programs, built from the same pinned sources, to compare answers with.

CMake option SNAPLLM_UPSTREAM_TOOLS builds them. Environment: SNAPLLM_UPSTREAM_BIN is the `bin`
folder of the build; without it the tests that need it are skipped, unless
SNAPLLM_REQUIRE_UPSTREAM is set.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import snapllm


def upstream_binary(name: str = "llama-server") -> Path:
    """A program of upstream's; skips or fails the test where there is none."""
    folder = Path(os.environ.get("SNAPLLM_UPSTREAM_BIN", ""))
    if name == "sd-cli":  # the image extension has a build of its own
        folder = folder.parent / "diffusion" / "bin"
    path = folder / name
    if not path.is_file():
        message = f"SNAPLLM_UPSTREAM_BIN has no {name}"
        if os.environ.get("SNAPLLM_REQUIRE_UPSTREAM"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


@contextmanager
def serving(
    binary: Path, model: snapllm.Model, log_path: Path, *arguments: object
) -> Iterator[str]:
    """Runs upstream's server with the settings that our engine computes with.

    They include the number of sequence ids: it decides how many cells the window layers have,
    and sliding-window models round differently with another number of cells.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # fmt: off
    command = [
        binary, "--model", model.info.path, "--port", port, "--threads", 1, "--flash-attn", "off",
        "--parallel", model.info.num_kv_sequences, "--kv-unified", "--ctx-size", 2048,
        "--no-warmup", "--no-context-shift", *arguments,
    ]
    # fmt: on
    with log_path.open("wb") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log_path.read_text()
            assert time.monotonic() < deadline, log_path.read_text()
            try:
                with urllib.request.urlopen(url + "/health", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(30)
