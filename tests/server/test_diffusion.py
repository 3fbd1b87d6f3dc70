"""Images over HTTP: the endpoint as specified, streams and jobs."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from described_answers import check_described_stream
from nano_image_model import doubling_upscaler, save_safetensors
from nano_models import make_nano_model
from pictures import PATH, SMALL, picture, png
from PIL import Image
from server_process import Server

LONG = SMALL | {"width": 256, "height": 256, "steps": 150}


def stream(server: Server, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a streamed image, up to the end."""
    request = urllib.request.Request(
        server.url + PATH, json.dumps(body | {"stream": True}).encode()
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for line in response:
            check_described_stream("POST", PATH, line.decode())
            if line == b"data: [DONE]\n":
                return
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    raise AssertionError("the stream ended without [DONE]")


def worker_starts(server: Server) -> int:
    starts: int = server.get("/api/v1/models/pix")["model"]["worker_starts"]
    return starts


def test_an_image_comes_back_as_specified(painter: Server) -> None:
    answer = painter.post(PATH, SMALL | {"negative_prompt": "blurry", "cfg_scale": 7.0})
    assert answer["status"] == "success"
    assert answer["seed"] == 1
    assert answer["generation_time_s"] > 0
    assert picture(answer["image"]).shape == (64, 64, 3)
    chosen = painter.post(PATH, SMALL | {"seed": -1})
    assert chosen["seed"] >= 0
    again = painter.post(PATH, SMALL | {"seed": chosen["seed"]})
    assert again["image"] == chosen["image"] != painter.post(PATH, SMALL)["image"]


def test_formats_and_batches(painter: Server) -> None:
    first = picture(painter.post(PATH, SMALL)["image"])
    for kind in ("jpeg", "webp"):
        data = painter.post(PATH, SMALL | {"output_format": kind})["image"]
        assert Image.open(io.BytesIO(base64.b64decode(data))).format == kind.upper()
    batch = painter.post(PATH, SMALL | {"batch_count": 2})
    assert batch["seeds"] == [1, 2] and len(batch["images"]) == 2
    assert np.array_equal(picture(batch["images"][0]), first)
    assert not np.array_equal(picture(batch["images"][1]), first)


def test_a_png_says_what_it_was_made_with(painter: Server) -> None:
    data = base64.b64decode(painter.post(PATH, SMALL)["image"])
    text = Image.open(io.BytesIO(data)).info["parameters"]
    assert text.startswith("a cat\nSteps: 3, ") and "Seed: 1, Size: 64x64, Model: pix" in text


def test_an_image_is_made_from_another(painter: Server) -> None:
    original = np.full((64, 64, 3), 120, np.uint8)
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[32:] = 255
    body = SMALL | {"init_image": "data:image/png;base64," + png(original), "strength": 0.8}
    made = picture(painter.post(PATH, body | {"mask": png(mask)})["image"])
    assert np.array_equal(made[:32], original[:32])
    assert not np.array_equal(made[32:], original[32:])
    assert not np.array_equal(picture(painter.post(PATH, body)["image"])[:32], original[:32])


def test_a_stream_tells_each_step_and_ends_with_the_result(painter: Server) -> None:
    events = list(stream(painter, SMALL | {"preview_interval": 2}))
    assert events[0]["type"] == "queued" and events[0]["job_id"].startswith("img_")
    steps = [(e["step"], e["of"]) for e in events if e["type"] == "progress"]
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    previews = [e for e in events if e["type"] == "preview"]
    assert [e["step"] for e in previews] == [2]
    assert Image.open(io.BytesIO(base64.b64decode(previews[0]["image"]))).format == "JPEG"
    assert events[-1]["type"] == "result" and events[-1]["done"] is True
    assert events[-1]["image"] == painter.post(PATH, SMALL)["image"]


def test_a_stream_of_a_batch_says_which_image_it_tells_of(painter: Server) -> None:
    events = list(stream(painter, SMALL | {"batch_count": 2, "preview_interval": 2}))
    told = [e for e in events if e["type"] in ("progress", "preview")]
    assert {e["batch_count"] for e in told} == {2}
    assert [e["image_number"] for e in told if e["type"] == "progress"] == [1] * 4 + [2] * 4
    assert [e["image_number"] for e in told if e["type"] == "preview"] == [1, 2]
    job = painter.get(f"/api/v1/diffusion/jobs/{events[0]['job_id']}")["job"]
    assert (job["image_number"], job["batch_count"], job["step"]) == (2, 2, 3)


def test_a_job_is_cancelled_by_its_id(painter: Server) -> None:
    starts = worker_starts(painter)
    events = stream(painter, LONG)
    job_id = next(events)["job_id"]
    while next(events)["type"] != "progress":
        pass
    path = f"/api/v1/diffusion/jobs/{job_id}"
    assert painter.get(path)["job"]["state"] == "running"
    assert [job["id"] for job in painter.get("/api/v1/diffusion/jobs")["jobs"]] == [job_id]
    assert painter.request("DELETE", path)[0] == 200
    with pytest.raises(AssertionError, match="DONE"):
        for event in events:
            last = event
    assert last["error"]["code"] == "generation_cancelled"
    assert painter.get(path)["job"]["state"] == "cancelled"
    assert painter.get("/api/v1/diffusion/jobs")["count"] == 0
    assert painter.post(PATH, SMALL)["status"] == "success"
    assert worker_starts(painter) == starts
    assert painter.request("DELETE", "/api/v1/diffusion/jobs/none")[0] == 404


def test_a_client_that_leaves_frees_the_model(painter: Server) -> None:
    connection = http.client.HTTPConnection(painter.url.removeprefix("http://"), timeout=60)
    connection.request("POST", PATH, json.dumps(LONG | {"stream": True}))
    answer = connection.getresponse()
    while b'"progress"' not in answer.readline():
        pass
    connection.close()
    deadline = time.monotonic() + 20
    while painter.get("/api/v1/models/pix")["model"]["requests_running"]:
        assert time.monotonic() < deadline, "the abandoned image is still being made"
        time.sleep(0.05)


def test_waiting_jobs_learn_their_position(painter: Server) -> None:
    running = stream(painter, LONG)
    job_id = next(running)["job_id"]
    waiting = stream(painter, SMALL)
    assert next(waiting)["position"] == 1
    painter.request("DELETE", f"/api/v1/diffusion/jobs/{job_id}")
    assert [event["type"] for event in waiting][-1] == "result"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "x" * 4001}, 400, "prompt"),
        ({"prompt": "a (cat:.)"}, 400, "prompt"),
        ({"prompt": "<lora:none>"}, 400, "prompt"),
        ({"loras": {"none": 1.0}}, 400, "loras"),
        ({"width": 0}, 400, "width"),
        ({"width": 100}, 400, "width"),
        ({"height": 4096}, 400, "height"),
        ({"steps": 0}, 400, "steps"),
        ({"steps": -1}, 400, "steps"),
        ({"steps": 1, "scheduler": "gits"}, 400, "steps"),
        ({"scheduler": "ays"}, 400, "scheduler"),
        ({"seed": 2**53 - 1, "batch_count": 2}, 400, "seed"),
        ({"prompt": "(" * 1000 + "a" + ")" * 1000}, 400, "prompt"),
        ({"cfg_scale": "much"}, 400, "cfg_scale"),
        ({"strength": 2}, 400, "strength"),
        ({"batch_count": 0}, 400, "batch_count"),
        ({"sampler": "best"}, 400, "sampler"),
        ({"mask": "AAAA"}, 400, "mask"),
        ({"init_image": "AAAA"}, 400, "init_image"),
        ({"init_image": "not base64!"}, 400, "init_image"),
        ({"output_format": "bmp"}, 400, "output_format"),
        ({"upscale": True}, 400, "upscale"),
        ({"model": "nobody"}, 404, "model"),
        ({"model_id": "nobody"}, 404, "model_id"),
        ({"model": "llama"}, 400, "model"),
    ],
)
def test_bad_requests_are_refused(
    painter: Server, fields: dict[str, Any], status: int, param: str | None
) -> None:
    found, answer, _ = painter.request("POST", PATH, SMALL | fields)
    assert found == status, answer
    assert answer["error"]["code"] == ("invalid_request" if status == 400 else "model_not_found")
    assert answer["error"]["param"] == param


def test_models_of_the_other_kind_are_named_as_such(painter: Server) -> None:
    """They are loaded: "not found" would be wrong."""
    models = painter.get("/v1/models")["data"]
    assert {model["id"] for model in models} >= {"pix", "llama"}
    chat = {"model": "pix", "messages": [{"role": "user", "content": "x"}]}
    for path, body in (
        ("/v1/chat/completions", chat),
        ("/v1/messages", {**chat, "max_tokens": 1}),
        ("/api/v1/diffusion/generate", {"model": "llama", "prompt": "x"}),
    ):
        status, answer, _ = painter.request("POST", path, body)
        assert status == 400, path
        assert "is an image model" in str(answer) or "is a text model" in str(answer)


def test_a_document_for_an_image_model_names_the_field_at_fault(painter: Server) -> None:
    ingest = {"content": "A document.", "model_id": "pix"}
    for path, body in (("ingest", ingest), ("import?model_id=pix", b"x")):
        status, answer, _ = painter.request("POST", f"/api/v1/contexts/{path}", body)
        assert (status, answer["error"]["param"]) == (400, "model_id"), answer


def test_without_an_image_model_the_error_says_so(server: Server) -> None:
    status, answer, _ = server.request("POST", PATH, SMALL)
    assert status == 404
    assert answer["error"]["code"] == "model_not_found"
    assert "no image model is loaded" in answer["error"]["message"]


def test_image_models_are_loaded_switched_and_unloaded(
    painter: Server, image_files: dict[str, Path], tmp_path: Path
) -> None:
    body = {
        "model_id": "second",
        "file_path": str(image_files["diffusion_model"]),
        "model_type": "diffusion",
        "llm_path": str(image_files["llm"]),
        "taesd_path": str(image_files["taesd"]),
    }
    loaded = painter.post("/api/v1/models/load", body)
    assert (loaded["status"], loaded["model_type"], loaded["active"]) == (
        "success",
        "Diffusion",
        False,
    )
    painter.post("/api/v1/models/load", body | {"model_id": "third", "model_type": "auto"})
    listing = painter.get("/api/v1/models")
    kinds = {model["id"]: model["type"] for model in listing["models"]}
    assert kinds == {
        "llama": "llm",
        "pix": "diffusion",
        "second": "diffusion",
        "third": "diffusion",
    }
    assert listing["active_model"] == "llama" and listing["active_image_model"] == "pix"
    assert {"pix", "llama"} <= {model["id"] for model in painter.get("/v1/models")["data"]}
    painter.post("/api/v1/models/switch", {"model_id": "second"})
    assert painter.post(PATH, SMALL)["model"] == "second"
    painter.post("/api/v1/models/switch", {"model_id": "pix"})
    assert painter.post(PATH, SMALL)["model"] == "pix"
    for model_id in ("second", "third"):
        painter.post("/api/v1/models/unload", {"model_id": model_id})
    text = {"model_id": "text", "file_path": str(make_nano_model(tmp_path / "t.gguf"))}
    for wrong in (
        text | {"model_type": "diffusion"},
        text | {"model_type": "llm", "vae_path": "x"},
        body | {"model_id": "x", "mmproj_path": "x"},
        body | {"model_id": "x", "taesd_path": str(tmp_path / "none")},
        body | {"model_id": "llama"},
        *(
            body | {"model_id": "x", "model_type": kind, name: "/tmp/a\0b"}
            for name in ("file_path", "taesd_path")
            for kind in ("auto", "diffusion")
        ),
        {"model_id": "x", "file_path": "/tmp/a\0b"},
    ):
        assert painter.request("POST", "/api/v1/models/load", wrong)[0] == 400, wrong


def resident_bytes(pid: int) -> int:
    """Memory of a process and of the processes it started."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(resident_bytes(child) for child in children)


def test_unloading_gives_the_memory_back(image_files: dict[str, Path]) -> None:
    server = Server("--no-demo", "--no-workspace").start(0)
    try:
        body = {
            "model_id": "pix",
            "file_path": str(image_files["diffusion_model"]),
            "model_type": "diffusion",
            "llm_path": str(image_files["llm"]),
            "taesd_path": str(image_files["taesd"]),
        }
        before = 0
        for number in range(4):
            if number == 1:  # the first imports what pictures need
                before = resident_bytes(server.process.pid)
            server.post("/api/v1/models/load", body)
            server.post(PATH, SMALL)
            assert resident_bytes(server.process.pid) > 1.3 * before
            server.post("/api/v1/models/unload", {"model_id": "pix"})
        assert resident_bytes(server.process.pid) < 1.1 * before
        assert server.stop() == 0
    finally:
        server.process.kill()


def test_words_and_pictures_are_made_at_once(painter: Server) -> None:
    prompt = {"prompt": "Hello", "model": "llama", "temperature": 0, "max_tokens": 8}
    words = painter.post("/api/v1/generate", prompt)["response"]
    image = painter.post(PATH, SMALL)["image"]
    answers: list[str] = []

    def write() -> None:
        answers.extend(painter.post("/api/v1/generate", prompt)["response"] for _ in range(20))

    writer = threading.Thread(target=write)
    writer.start()
    images = [painter.post(PATH, SMALL)["image"] for _ in range(4)]
    writer.join()
    assert answers == [words] * 20
    assert images == [image] * 4


def test_a_killed_worker_costs_one_request(painter: Server) -> None:
    expected = painter.post(PATH, SMALL)["image"]
    children = Path(f"/proc/{painter.process.pid}/task/{painter.process.pid}/children")
    workers = [
        int(pid)
        for task in children.parents[1].iterdir()
        for pid in (task / "children").read_text().split()
    ]
    assert len(workers) == 1
    events = stream(painter, LONG)
    while next(events)["type"] != "progress":
        pass
    os.kill(workers[0], signal.SIGKILL)
    with pytest.raises(AssertionError, match="DONE"):
        for event in events:
            last = event
    assert last["error"]["code"] == "generation_failed"
    assert painter.post(PATH, SMALL)["image"] == expected


def test_of_one_file_given_twice_the_first_field_is_at_fault(
    painter: Server, image_files: dict[str, Path]
) -> None:
    encoder = str(image_files["llm"])
    body = {"model_id": "twice", "model_type": "diffusion", "file_path": encoder}
    status, answer, _ = painter.request(
        "POST", "/api/v1/models/load", body | {"llm_path": encoder, "taesd_path": encoder}
    )
    assert (status, answer["error"]["param"]) == (400, "file_path")


def test_an_image_models_id_that_is_taken_is_the_field_at_fault(
    painter: Server, image_files: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(image_files["diffusion_model"].read_bytes())
    body = {"model_id": "pix", "file_path": str(other), "taesd_path": str(image_files["taesd"])}
    status, answer, _ = painter.request("POST", "/api/v1/models/load", body)
    assert (status, answer["error"]["param"]) == (400, "model_id")


def test_a_second_load_says_that_it_gets_nothing_else(
    painter: Server, image_files: dict[str, Path], tmp_path: Path
) -> None:
    body = {"model_id": "pix", "file_path": str(image_files["diffusion_model"])}
    assert painter.post("/api/v1/models/load", body)["model"] == "pix"
    wrong = body | {"lora_dir": str(tmp_path)}
    status, answer, _ = painter.request("POST", "/api/v1/models/load", wrong)
    assert (status, answer["error"]["param"]) == (400, "model_id")
    assert "unload it first" in answer["error"]["message"]


def test_an_unused_image_model_is_evicted_and_comes_back(
    painter: Server, image_files: dict[str, Path]
) -> None:
    body = {
        "model_id": "brief",
        "file_path": str(image_files["diffusion_model"]),
        "llm_path": str(image_files["llm"]),
        "taesd_path": str(image_files["taesd"]),
        "keep_alive_s": 0.2,
    }
    painter.post("/api/v1/models/load", body)
    painter.line_with("evicted brief from memory")
    assert painter.post(PATH, SMALL | {"model": "brief"})["image"]
    painter.post("/api/v1/models/unload", {"model_id": "brief"})


def test_the_command_loads_a_model_of_several_files(
    painter: Server, image_files: dict[str, Path]
) -> None:
    def models(*arguments: str) -> str:
        command = [sys.executable, "-m", "snapllm", "models", "--url", painter.url, *arguments]
        return subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=image_files["llm"].parent,
        ).stdout

    # Relative to the command's directory, which the server does not know.
    parts = [f"--part={part}={image_files[part].name}" for part in ("llm", "taesd")]
    options = [*parts, "--lora-dir", "."]
    main = str(image_files["diffusion_model"])
    assert models("load", "by-command", main, *options).startswith("Model loaded: by-command")
    made = painter.post(PATH, SMALL | {"model": "by-command"})
    assert np.array_equal(picture(made["image"]), picture(painter.post(PATH, SMALL)["image"]))
    assert models("unload", "by-command") == "Model unloaded: by-command\n"


def test_the_command_makes_images_here_and_by_a_server(
    painter: Server, image_files: dict[str, Path], tmp_path: Path
) -> None:
    def make(name: str, *arguments: str) -> np.ndarray:
        path = tmp_path / name
        run = "import sys; from snapllm.cli import main; sys.exit(main())"
        options = ["-o", str(path), "--size", "64x64", "--steps", "3", "--seed", "1"]
        command = [sys.executable, "-c", run, "image", "a cat", *options, *arguments]
        subprocess.run(command, check=True, timeout=120)
        return np.asarray(Image.open(path))

    expected = picture(painter.post(PATH, SMALL)["image"])
    assert np.array_equal(make("a.png", "--url", painter.url), expected)
    parts = [f"{part}={image_files[part]}" for part in ("llm", "taesd")]
    arguments = ["--model", str(image_files["diffusion_model"])]
    arguments += ["--part", parts[0], "--part", parts[1]]
    assert np.array_equal(make("b.png", *arguments), expected)
    upscaler = save_safetensors(tmp_path / "twice.safetensors", doubling_upscaler())
    arguments += ["--part", f"upscaler={upscaler}", "--upscale"]
    assert make("c.png", *arguments).shape == (128, 128, 3)
    with pytest.raises(subprocess.CalledProcessError):  # the server's model has none
        make("d.png", "--url", painter.url, "--upscale")
