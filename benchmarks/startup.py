"""What it takes to import the package, to answer /health, and to load a model."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import urllib.error
import urllib.request

import snapllm
from benchmarks.peers import START_TIMEOUT_S, Settings, environment, free_port, ours
from benchmarks.report import Row, row


def run(options: argparse.Namespace) -> list[Row]:
    """Processes of their own, but for the load; files are in the page cache."""
    imports, healths, loads = [], [], []
    settings = Settings((("m", options.model),), options.threads or options.cores, 1, 2048)
    _health_ms(settings, options)  # warms up: bytecode, and the model's calibration
    for _ in range(options.rounds):
        bare, whole = _run_ms("pass"), _run_ms("import snapllm")
        imports.append(whole - bare)
        healths.append(_health_ms(settings, options))
        with snapllm.Engine() as engine:
            loads.append(engine.load(options.model).info.load_ms)
    return [
        row("import snapllm", imports, "ms"),
        row("process start to the first answer of /health", healths, "ms"),
        row("load of the model", loads, "ms", f"{options.model.stat().st_size / 1e6:.0f} MB"),
    ]


def _run_ms(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    return (time.perf_counter() - start) * 1000


def _health_ms(settings: Settings, options: argparse.Namespace) -> float:
    port = free_port()
    start = time.perf_counter()
    with options.log("startup").open("wb") as log:
        command = ours(settings, port, options.scratch / "w")
        process = subprocess.Popen(command, stderr=log, env=environment())
    try:
        while process.poll() is None and time.perf_counter() < start + START_TIMEOUT_S:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    return (time.perf_counter() - start) * 1000
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.005)
        raise RuntimeError("the server does not come up")
    finally:
        process.terminate()
        process.wait(30)
