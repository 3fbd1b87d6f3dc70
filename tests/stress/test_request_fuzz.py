"""No request, whatever it is, brings the server down, hangs, or is answered out of form.

Environment: SNAPLLM_FUZZ_REQUESTS is how many requests are sent (default 400), SNAPLLM_FUZZ_SEED
which (default: always the same).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing.requests import TWIN_CONTEXT, Request, Requests, examples
from fuzzing.run import NUM_TOGETHER, Run, Watch
from hypothesis import HealthCheck, Phase, given, seed, settings
from nano_models import make_nano_model
from server_process import Server

NUM_REQUESTS = int(os.environ.get("SNAPLLM_FUZZ_REQUESTS", "400"))
SEED = os.environ.get("SNAPLLM_FUZZ_SEED")
MAX_GROWTH_BYTES = 600 << 20
"""Of the server's memory, once it is warm: it may keep some KV in RAM, and models come and go."""
QUESTION = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture
def folder(tmp_path: Path, image_files: dict[str, Path]) -> Path:
    """Files that the requests name, good ones and bad ones."""
    whole = make_nano_model(tmp_path / "second.gguf", "qwen3", seed=2)
    make_nano_model(tmp_path / "mamba.gguf", "mamba2", seed=3)
    (tmp_path / "half.gguf").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "text.gguf").write_text("This is no model.")
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "image").symlink_to(image_files["llm"].parent)
    return tmp_path


@pytest.fixture
def server(folder: Path, llama_path: Path) -> Iterator[Server]:
    """A server with the demo, a nano model and an image model, with little memory."""
    options = ("--workspace", str(folder / "w"), "--memory-budget", "1GiB", "--kv-ram", "64")
    server = Server(*options)
    try:
        server.start(1)
        load, image = "/api/v1/models/load", folder / "image"
        server.post(load, {"model_id": "nano", "file_path": str(llama_path)})
        parts = {f"{name}_path": str(image / f"{name}.safetensors") for name in ("llm", "taesd")}
        path = str(image / "diffusion_model.safetensors")
        server.post(load, {"model_id": "pix", "file_path": path, **parts})
        for model_id in ("demo", "nano"):
            body = {"content": "The sky is green.", "model_id": model_id, "name": "doc"}
            server.post("/api/v1/contexts/ingest", body)
        body = {"content": "The sky is green.", "model_id": "demo", "name": TWIN_CONTEXT}
        server.post("/api/v1/contexts/ingest", body)
        yield server
        assert server.stop() == 0
    finally:
        server.process.kill()


def resident_bytes(server: Server) -> int:
    """Memory of the server's process."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def settle(server: Server) -> None:
    """Waits until no request runs or waits any more."""
    deadline = time.monotonic() + 60
    while True:
        stats = server.get("/api/v1/models/cache/stats")["stats"]["models"]
        jobs = server.get("/api/v1/diffusion/jobs")["jobs"]
        busy = [each for each in stats if each["requests_running"] or each["requests_waiting"]]
        if not busy and not jobs:
            return
        assert time.monotonic() < deadline, f"requests are left: {busy} {jobs}"
        time.sleep(0.1)


@pytest.mark.slow
def test_no_request_is_answered_out_of_form(server: Server, folder: Path) -> None:
    run, watch = Run(server, folder), Watch(server.url)
    for request in examples():
        answer = run.sent(request)
        assert answer.status == 200, (request, answer)
    exported = run.sent(Request("GET", "", "/api/v1/contexts/doc/export")).body
    watch.start()
    sizes = _send_all(run, Requests(server.get("/openapi.json"), exported), server)
    watch.stop()
    print(run.summary(), f"health {watch.slowest_s:.2f} s", sep="\n")
    assert watch.faults + run.faults == [], "\n".join(watch.faults + run.faults)
    settle(server)
    assert sizes[-1] - sizes[len(sizes) // 4] < MAX_GROWTH_BYTES, [size >> 20 for size in sizes]
    body: dict[str, Any] = {"model": "demo", "messages": [QUESTION], "temperature": 0}
    plain = server.post("/v1/chat/completions", body)
    assert "Paris" in plain["choices"][0]["message"]["content"]


def _send_all(run: Run, requests: Requests, server: Server) -> list[int]:
    """Sends all requests, a few at the same time; returns the server's sizes meanwhile."""
    together: list[Request] = []
    sizes: list[int] = []

    @settings(
        max_examples=NUM_REQUESTS,
        deadline=None,
        database=None,
        derandomize=SEED is None,
        # The server remembers: no failure can be made smaller by asking again.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests.all())
    def send(request: Request) -> None:
        together.append(request)
        if len(together) == NUM_TOGETHER:
            run.send(together)
            together.clear()
            sizes.append(resident_bytes(server))

    (seed(int(SEED))(send) if SEED is not None else send)()
    return sizes
