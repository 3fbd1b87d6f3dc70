"""Models over HTTP and from the command line: states, pins, budget, counters."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nano_models import make_nano_model
from nano_projectors import make_nano_projector
from server_process import Server
from waiting import wait_until

SPECIFIED_STATS = {
    "total_models_loaded",
    "gpu_memory_used_mb",
    "cpu_memory_used_mb",
    "cache_hits",
    "cache_misses",
    "hit_rate",
}


def test_a_load_of_a_model_whose_file_was_replaced_says_to_unload_it_first(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf", seed=1)
    server = Server("--model", f"m={path}", "--no-workspace").start(1)
    body = {"model_id": "m", "file_path": str(path)}
    try:
        server.post("/api/v1/models/load", body)
        make_nano_model(tmp_path / "new.gguf", seed=2).replace(path)
        status, answer, _ = server.request("POST", "/api/v1/models/load", body)
        assert (status, answer["error"]["code"]) == (409, "model_file_replaced")
        assert answer["error"]["param"] == "model_id"
        server.post("/api/v1/models/unload", {"model_id": "m"})
        server.post("/api/v1/models/load", body)
    finally:
        assert server.stop() == 0


def test_a_template_that_would_end_the_server_is_refused(tmp_path: Path, server: Server) -> None:
    template = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"
    path = make_nano_model(tmp_path / "m.gguf")
    body = {"model_id": "deadly", "file_path": str(path), "chat_template": template}
    status, answer, _ = server.request("POST", "/api/v1/models/load", body)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert answer["error"]["param"] == "chat_template"
    make_nano_model(path, template=template)
    body = {"model_id": "deadly", "file_path": str(path)}
    status, answer, _ = server.request("POST", "/api/v1/models/load", body)
    assert (status, answer["error"]["code"]) == (400, "invalid_model")
    assert "its chat template" in answer["error"]["message"]
    assert server.get("/health")["status"] == "ok"


def metric(server: Server, name: str) -> float:
    lines = [line for line in server.get("/metrics").splitlines() if line.startswith(name)]
    assert lines, name
    return sum(float(line.split()[-1]) for line in lines)


def models_command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snapllm", "models", "--url", server.url, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_one_model_is_described(server: Server, qwen_path: Path) -> None:
    model = server.get("/api/v1/models/qwen")["model"]
    assert model in server.get("/api/v1/models")["models"]
    assert (model["id"], model["state"], model["pinned"]) == ("qwen", "resident", False)
    assert model["context_size"] == model["train_context_size"] == 2048
    assert model["gpu_layers"] == -1
    assert min(model["weights_mb"], model["kv_mb"], model["compute_mb"]) > 0
    assert model["size_gb"] == round(qwen_path.stat().st_size / 1e9, 6) > 0
    status, answer, _ = server.request("GET", "/api/v1/models/nobody")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_cache_stats_have_the_specifications_fields_and_count(server: Server) -> None:
    before = server.get("/api/v1/models/cache/stats")
    body = {"prompt": "count me " * 20, "model": "qwen", "max_tokens": 3}
    for _ in range(2):
        server.post("/api/v1/generate", body)
    after = server.get("/api/v1/models/cache/stats")
    stats = after["stats"]
    assert set(stats) >= SPECIFIED_STATS
    assert {name: after[name] for name in SPECIFIED_STATS} == {
        name: stats[name] for name in SPECIFIED_STATS
    }
    assert stats["cpu_memory_used_mb"] > 1
    assert stats["cache_hits"] > before["stats"]["cache_hits"]
    assert stats["cache_misses"] > before["stats"]["cache_misses"]
    assert 0 < stats["hit_rate"] < 1
    qwen = next(model for model in stats["models"] if model["id"] == "qwen")
    assert qwen["requests"] >= 2
    assert qwen["mean_ttft_ms"] > 0


def test_metrics_count_latencies(server: Server) -> None:
    name = 'snapllm_time_to_first_token_seconds_count{model="llama"}'
    before = metric(server, name)
    server.post("/api/v1/generate", {"prompt": "x", "model": "llama", "max_tokens": 4})
    assert metric(server, name) == before + 1
    assert metric(server, "snapllm_memory_budget_bytes") > metric(
        server, "snapllm_memory_used_bytes"
    )
    assert metric(server, "snapllm_model_resident") >= 2


def test_a_model_is_pinned_over_http(server: Server) -> None:
    answer = server.post("/api/v1/models/pin", {"model_id": "qwen"})
    assert answer == {
        "status": "success",
        "message": "Pinned model: qwen",
        "model": "qwen",
        "pinned": True,
    }
    assert server.get("/api/v1/models/qwen")["model"]["pinned"]
    server.post("/api/v1/models/pin", {"model_id": "qwen", "pinned": False})
    assert not server.get("/api/v1/models/qwen")["model"]["pinned"]


def test_the_models_command_manages_a_server(server: Server, qwen_path: Path) -> None:
    try:
        loaded = models_command(server, "load", "cli", str(qwen_path), "--context-size", "512")
        assert loaded.stdout.startswith("Model loaded: cli"), loaded.stderr
        listing = models_command(server).stdout
        assert [line.split()[0] for line in listing.splitlines()] == ["ID", "llama", "qwen", "cli"]
        assert "active" in listing.splitlines()[1]
        assert "512" in listing.splitlines()[3]
        assert "Switched to model: cli" in models_command(server, "switch", "cli").stdout
        assert "Pinned model: cli" in models_command(server, "pin", "cli").stdout
        assert '"total_models_loaded": 3' in models_command(server, "stats").stdout
    finally:
        models_command(server, "switch", "llama")
        assert models_command(server, "unload", "cli").stdout == "Model unloaded: cli\n"
    refused = models_command(server, "unload", "cli")
    assert (refused.returncode, refused.stderr) == (1, "snapllm models: Model not found: cli\n")


def test_the_models_command_loads_a_model_with_eyes(
    server: Server, qwen_path: Path, tmp_path: Path
) -> None:
    projector = make_nano_projector(tmp_path / "mmproj.gguf")
    options = ["--mmproj", str(projector)]
    try:
        loaded = models_command(server, "load", "sees", str(qwen_path), *options)
        assert loaded.stdout.startswith("Model loaded: sees"), loaded.stderr
        assert server.get("/api/v1/models/sees")["model"]["type"] == "vision"
    finally:
        models_command(server, "unload", "sees")


def test_the_models_command_says_when_there_is_no_server() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "snapllm", "models", "--url", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "cannot reach" in result.stderr


def test_a_load_has_the_options_of_the_engines(server: Server, qwen_path: Path) -> None:
    def loaded(**options: object) -> dict[str, object]:
        body = {"model_id": "tuned", "file_path": str(qwen_path), "context_size": 512}
        server.post("/api/v1/models/load", body | options)
        try:
            found: dict[str, object] = server.get("/api/v1/models/tuned")["model"]
            return found
        finally:
            server.post("/api/v1/models/unload", {"model_id": "tuned"})

    plain = loaded(flash_attention="on")
    tuned = loaded(kv_type="f32", max_sequences=3, flash_attention="off")
    assert tuned["kv_mb"] == pytest.approx(2 * float(str(plain["kv_mb"])), rel=0.01)
    assert (plain["flash_attention"], tuned["flash_attention"]) == (True, False)
    assert tuned["max_sequences"] == 3


def test_a_server_gives_its_models_the_options_of_its_command_line(llama_path: Path) -> None:
    model = f"llama={llama_path}"
    small = ("--context-size", "512", "--no-workspace", "--gpu-layers", "0")
    sizes = {}
    for kv_type in ("f16", "f32"):
        server = Server("--model", model, *small, "--kv-type", kv_type).start(1)
        try:
            sizes[kv_type] = server.get("/api/v1/models/llama")["model"]["kv_mb"]
        finally:
            assert server.stop() == 0
    assert sizes["f32"] == pytest.approx(2 * sizes["f16"], rel=0.01)


def test_a_load_beside_unloads_succeeds_or_says_that_it_was_unloaded(
    server: Server, llama_path: Path
) -> None:
    load = {"model_id": "torn", "file_path": str(llama_path), "context_size": 64}
    is_over = threading.Event()

    def unload() -> None:
        while not is_over.is_set():
            server.request("POST", "/api/v1/models/unload", {"model_id": "torn"})

    with ThreadPoolExecutor(1) as threads:
        unloading = threads.submit(unload)
        answers = [server.request("POST", "/api/v1/models/load", load) for _ in range(30)]
        is_over.set()
        unloading.result()
    server.request("POST", "/api/v1/models/unload", {"model_id": "torn"})
    reasons = [answer["error"]["code"] for status, answer, _ in answers if status != 200]
    assert set(reasons) <= {"closed"}


def test_a_small_model_is_there_when_the_server_listens(llama_path: Path) -> None:
    server = Server("--model", f"llama={llama_path}", "--no-workspace").start(1)
    try:
        listing = server.get("/api/v1/models")
        assert listing["total_loaded"] == 1
        assert listing["models"][0]["state"] == "resident"
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    "body",
    [
        {"model_id": "m", "file_path": "x", "keep_alive_s": -1},
        {"model_id": "m", "file_path": "x", "gpu_layers": -2},
        {"model_id": "m", "file_path": "x", "pinned": "yes"},
        {"model_id": "m", "file_path": "x", "kv_type": "q4_0"},
        {"model_id": "m", "file_path": "x", "max_sequences": 65},
        {"model_id": "m", "file_path": "x", "flash_attention": "perhaps"},
        {"model_id": "m", "file_path": "x", "model_type": "diffusion", "kv_type": "f32"},
        {"model_id": "", "file_path": "x"},
        {"model_id": "m"},
    ],
)
def test_wrong_load_requests_name_the_field(server: Server, body: dict[str, object]) -> None:
    status, answer, _ = server.request("POST", "/api/v1/models/load", body)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert answer["error"]["param"] or "file_path" in answer["error"]["message"]


def test_a_load_that_is_refused_names_the_field_at_fault(
    server: Server, llama_path: Path, image_files: dict[str, Path], tmp_path: Path
) -> None:
    def refusal(**body: object) -> tuple[str, str]:
        status, answer, _ = server.request("POST", "/api/v1/models/load", body)
        assert status == 400, answer
        return answer["error"]["code"], answer["error"]["param"]

    llama, missing, text = str(llama_path), str(tmp_path / "no.gguf"), tmp_path / "text.gguf"
    text.write_text("This is no model.")
    assert refusal(model_id="qwen", file_path=llama) == ("invalid_request", "model_id")
    sized = {"model_id": "llama", "file_path": llama, "context_size": 64}
    assert refusal(**sized) == ("invalid_request", "model_id")
    assert refusal(model_id="a\nb", file_path=llama) == ("invalid_request", "model_id")
    assert refusal(model_id="..", file_path=llama) == ("invalid_request", "model_id")
    assert refusal(model_id="m", file_path="\0") == ("invalid_request", "file_path")
    assert refusal(model_id="m", file_path=missing) == ("file_not_found", "file_path")
    assert refusal(model_id="m", file_path=str(text)) == ("invalid_model", "file_path")
    seeing = {"model_id": "m", "file_path": llama, "mmproj_path": missing}
    assert refusal(**seeing) == ("file_not_found", "mmproj_path")
    assert refusal(**seeing | {"mmproj_path": llama}) == ("invalid_model", "mmproj_path")
    loras = {"model_id": "m", "file_path": llama, "lora_dir": str(tmp_path)}
    assert refusal(**loras) == ("invalid_request", "lora_dir")
    drawing = {"model_id": "m", "file_path": str(image_files["diffusion_model"])}
    assert refusal(**drawing, vae_path=missing) == ("file_not_found", "vae_path")
    assert refusal(**drawing, llm_path=".") == ("invalid_model", "llm_path")
    assert refusal(**drawing, llm_path=str(text)) == ("invalid_model", "llm_path")
    wrong = {"llm_path": str(image_files["llm"]), "taesd_path": str(image_files["llm"])}
    assert refusal(**drawing, **wrong) == ("invalid_model", "taesd_path")


def test_unused_models_are_evicted_and_come_back(llama_path: Path) -> None:
    server = Server("--model", f"llama={llama_path}", "--keep-alive", "2s").start(1)
    try:
        body = {"prompt": "Hello", "max_tokens": 8, "temperature": 0}
        before = server.post("/api/v1/generate", body)["response"]
        wait_until(lambda: server.get("/api/v1/models")["total_loaded"] == 0)
        names = ("snapllm_model_reloads", "snapllm_model_loads_total")
        loads = [metric(server, name) for name in names]
        assert server.get("/api/v1/models/llama")["model"]["state"] == "evicted"
        assert server.get("/v1/models")["data"][0]["id"] == "llama"
        assert server.get("/health")["models_loaded"] == []
        switched = server.post("/api/v1/models/switch", {"model_id": "llama"})
        assert switched["state"] == "evicted"  # moved the default, and loaded nothing
        assert server.post("/api/v1/generate", body)["response"] == before
        assert server.get("/health")["models_loaded"] == ["llama"]
        assert [metric(server, name) for name in names] == [number + 1 for number in loads]
    finally:
        assert server.stop() == 0


def test_sums_do_not_go_back_where_a_model_is_unloaded(llama_path: Path) -> None:
    server = Server("--no-demo", "--no-workspace").start(0)
    load = {"model_id": "m", "file_path": str(llama_path)}
    ask = {"model": "m", "prompt": "Hello there, all of you", "max_tokens": 2}

    def counts() -> list[float]:
        stats = server.get("/api/v1/models/cache/stats")
        assert stats["cache_hits"] == stats["stats"]["cache_hits"]
        names = ("prompt_tokens_total", "requests_total", "queue_time_seconds_count")
        values = [metric(server, f'snapllm_{name}{{model="m"}}') for name in names]
        return [stats["cache_hits"], stats["cache_misses"], *values]

    try:
        for _ in range(2):
            server.post("/api/v1/models/load", load)
            server.post("/v1/completions", ask)
            server.post("/v1/completions", ask)
            before = counts()
            server.post("/api/v1/models/unload", {"model_id": "m"})
            assert counts() == before
        assert before[3:] == [4, 4] and before[0] > 0
    finally:
        assert server.stop() == 0


def test_a_model_over_the_budget_is_refused_with_the_numbers(llama_path: Path) -> None:
    server = Server("--no-demo", "--memory-budget", "10MiB").start(0)
    try:
        body = {"model_id": "m", "file_path": str(llama_path)}
        status, answer, _ = server.request("POST", "/api/v1/models/load", body)
        assert (status, answer["error"]["code"]) == (500, "out_of_memory")
        assert "budget of 10.0 MiB" in answer["error"]["message"]
        assert server.get("/api/v1/models")["total_loaded"] == 0
    finally:
        assert server.stop() == 0


def test_what_the_command_line_says_of_models_holds_for_those_loaded_later(
    llama_path: Path,
) -> None:
    options = ("--context-size", "512", "--kv-type", "f32", "--draft-tokens", "3")
    server = Server("--no-demo", "--no-workspace", *options).start(0)
    try:
        plain = {"model_id": "plain", "file_path": str(llama_path)}
        server.post("/api/v1/models/load", plain)
        server.post(
            "/api/v1/models/load", plain | {"model_id": "own", "context_size": 0, "kv_type": "f16"}
        )
        server.post("/api/v1/models/load", plain | {"model_id": "own"})  # says nothing else
        server.post("/api/v1/models/load", plain | {"model_id": "small", "kv_cells": 256})
        models = {m["id"]: m for m in server.get("/api/v1/models")["models"]}
        assert (models["plain"]["context_size"], models["own"]["context_size"]) == (512, 2048)
        assert models["small"]["context_size"] <= 256
        assert models["plain"]["draft_tokens"] == models["own"]["draft_tokens"] == 3
        per_cell = {each: model["kv_mb"] / model["kv_cells"] for each, model in models.items()}
        assert per_cell["plain"] > 1.5 * per_cell["own"]
    finally:
        server.stop()


def test_no_model_is_loaded_under_an_alias_that_would_hide_it(llama_path: Path) -> None:
    server = Server("--model", f"llama={llama_path}", "--alias", "gpt=llama", "--no-workspace")
    server.start(1)
    try:
        load = {"model_id": "gpt", "file_path": str(llama_path)}
        status, answer, _ = server.request("POST", "/api/v1/models/load", load)
        assert (status, answer["error"]["param"]) == (400, "model_id")
        assert "alias of llama" in answer["error"]["message"]
    finally:
        server.stop()
