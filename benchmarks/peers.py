"""Servers to measure: ours and llama.cpp's own, started with the same settings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Settings:
    """What all peers are started with."""

    models: tuple[tuple[str, Path], ...]
    num_threads: int
    num_slots: int
    context_size: int
    """Tokens that one request may have."""


@dataclass(frozen=True)
class Peer:
    """A running server."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def memory_mb(self) -> float:
        """What it and its children hold, pages they share with others in part only."""
        return sum(_pss_kib(pid) for pid in _family(self.process.pid)) * 1024 / 1e6


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _family(int(child))
    return found


def _pss_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ours(settings: Settings, port: int, workspace: Path, budget_bytes: int = 0) -> list[str]:
    """The command line of our server; without a budget it is the machine's."""
    command = [sys.executable, "-m", "snapllm.serve", "--port", str(port)]
    command += ["--threads", str(settings.num_threads)]
    command += ["--context-size", str(settings.context_size)]
    command += ["--workspace", str(workspace)]
    if budget_bytes > 0:
        command += ["--memory-budget", str(budget_bytes)]
    for model_id, path in settings.models:
        command += ["--model", f"{model_id}={path}"]
    return command


def llama_server(
    settings: Settings, port: int, binary: Path, slots: Path | None = None
) -> list[str]:
    """The command line of llama.cpp's server with one model, its slots' files in a folder."""
    [(_, path)] = settings.models
    cells = settings.context_size * settings.num_slots
    return [
        *(str(binary), "--model", str(path), "--port", str(port)),
        *("--threads", str(settings.num_threads), "--parallel", str(settings.num_slots)),
        *("--ctx-size", str(cells), "--no-webui"),
        *(() if slots is None else ("--slot-save-path", str(slots))),
    ]


def llama_router(
    settings: Settings, port: int, binary: Path, preset: Path, max_models: int
) -> list[str]:
    """The command line of llama.cpp's server in router mode, with so many models in memory."""
    lines = ["version = 1"]
    for model_id, path in settings.models:
        lines += [
            f"[{model_id}]",
            f"model = {path}",
            f"threads = {settings.num_threads}",
            f"parallel = {settings.num_slots}",
            f"ctx-size = {settings.context_size}",
        ]
    preset.write_text("\n".join(lines) + "\n")
    return [
        *(str(binary), "--port", str(port), "--models-preset", str(preset)),
        *("--models-max", str(max_models), "--no-webui"),
    ]


def llama_cpp_python(settings: Settings, port: int, python: Path) -> list[str]:
    """The command line of llama-cpp-python's server in another environment; one at a time."""
    [(model_id, path)] = settings.models
    return [
        *(str(python), "-m", "llama_cpp.server", "--model", str(path), "--port", str(port)),
        *("--n_threads", str(settings.num_threads), "--n_ctx", str(settings.context_size)),
        *("--model_alias", model_id, "--interrupt_requests", "false"),
    ]


def environment() -> dict[str, str]:
    """For child processes: Python keeps the bytecode of this checkout, as it does of a package
    that is installed."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


@contextmanager
def running(name: str, command: Sequence[str], log: Path, port: int) -> Iterator[Peer]:
    """Starts a server, waits until it can answer, and ends it."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment())
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, log)
        yield Peer(name, url, process, log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if _is_ready(url):
                return
        time.sleep(0.02)
    raise RuntimeError(f"{url} does not come up:\n{log.read_text()[-2000:]}")


def _is_ready(url: str) -> bool:
    """Whether the models are loaded: ours tells in /health, llama-server answers it only then."""
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as response:
            health = json.load(response)
            return not health.get("models_loading")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            return False
    with urllib.request.urlopen(url + "/v1/models", timeout=5):  # llama-cpp-python
        return True
