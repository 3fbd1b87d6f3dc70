"""Models from a hub, by the programs that take them."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub
from nano_models import make_nano_model
from nano_projectors import make_nano_projector
from PIL import Image
from server_process import Server
from split_files import split_file

import snapllm
from snapllm.hub import fetch


@pytest.fixture
def hub(
    model_dir: Path, llama_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    seeing = make_nano_model(model_dir / "seeing.gguf", "llama")
    projector = make_nano_projector(model_dir / "seeing-mmproj.gguf")
    parts = split_file(llama_path, tmp_path / "parts" / "whole-Q8_0")
    hub = FakeHub(
        {
            "some/model": {"whole-F16.gguf": llama_path} | {part.name: part for part in parts},
            "some/eyes": {"eyes-Q4_0.gguf": seeing, "mmproj-F16.gguf": projector},
        }
    )
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    yield hub
    hub.close()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snapllm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_model_is_downloaded_once_and_found_without_the_network(
    hub: FakeHub, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("pull", "some/model:F16")
    assert first.returncode == 0, first.stderr
    path = Path(first.stdout.strip())
    assert path.read_bytes() == llama_path.read_bytes()
    assert COMMIT in str(path)
    assert run("pull", "hf:some/model:F16").stdout == first.stdout
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run("pull", "some/model").stdout == first.stdout  # what else there is is not known
    missing = run("pull", "some/model:Q8_0")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "offline" in missing.stderr
    assert hub.downloads == ["whole-F16.gguf"]


def test_all_parts_of_a_split_model_are_downloaded_and_it_runs(hub: FakeHub) -> None:
    answer = run("run", "--model", "hf:some/model:Q8_0", "--max-tokens", "2", "hello")
    assert answer.returncode == 0, answer.stderr
    assert "[whole-Q8_0: 2 tokens" in answer.stderr
    assert len(hub.downloads) > 2


def test_a_served_model_comes_with_its_projector(hub: FakeHub) -> None:
    server = Server("--model", "eyes=hf:some/eyes", "--no-workspace").start(1)
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    url = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "eyes", "messages": [{"role": "user", "content": parts}], "max_tokens": 1}
    assert server.request("POST", "/v1/chat/completions", body)[0] == 200
    assert sorted(hub.downloads) == ["eyes-Q4_0.gguf", "mmproj-F16.gguf"]


def test_no_projector_is_downloaded_where_one_is_given(hub: FakeHub, model_dir: Path) -> None:
    projector = make_nano_projector(model_dir / "given-mmproj.gguf")
    server = Server("--model", "eyes=hf:some/eyes", "--mmproj", f"eyes={projector}").start(1)
    assert server.get("/api/v1/models/eyes")["model"]["type"] == "vision"
    assert hub.downloads == ["eyes-Q4_0.gguf"]


def test_what_cannot_be_downloaded_says_why(hub: FakeHub) -> None:
    for arguments, status, message in (
        (("pull", "no/such"), 1, "snapllm pull: no/such: 404"),
        (("pull", "some/model:Q2_K"), 2, "has no Q2_K, but whole-F16.gguf"),
        (("serve", "--model", "m=hf:nothing"), 2, "expected hf:OWNER/REPO:TAG"),
        (("serve", "--model", "m=hf:no/such"), 1, "snapllm serve: hf:no/such: 404"),
        (("run", "--model", "hf:no/such", "hello"), 1, "snapllm run: hf:no/such: 404"),
    ):
        ended = run(*arguments)
        assert (ended.returncode, ended.stdout) == (status, "")
        assert message in ended.stderr, ended.stderr
        assert "Traceback" not in ended.stderr


def test_what_was_fetched_is_loaded_with_a_projector_and_without(hub: FakeHub) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        for reference, sees in (("some/model:F16", False), ("some/eyes", True)):
            found = fetch(reference)
            model = engine.load(found.path, reference, mmproj_path=found.mmproj_path)
            assert model.info.has_vision == sees


def test_where_only_files_are_loaded_a_model_of_the_hub_is_told_how_to_become_one() -> None:
    name = "hf:some/model:F16"
    with snapllm.Engine(num_threads=1) as engine:
        for load in (engine.load, engine.load_diffusion):
            with pytest.raises(snapllm.ModelFileNotFoundError, match="snapllm pull") as failure:
                load(name)
            assert failure.value.filename == name
    server = Server("--no-demo").start(0)
    for model_type in ("auto", "llm", "diffusion"):
        body = {"model_id": "m", "file_path": name, "model_type": model_type}
        status, answer, _ = server.request("POST", "/api/v1/models/load", body)
        assert (status, answer["error"]["param"]) == (400, "file_path")
        assert answer["error"]["code"] == "file_not_found"
        assert answer["error"]["message"].startswith(f"{name} is no file")
    refused = run("models", "--url", server.url, "load", "m", name)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"{name} is no file" in refused.stderr and "snapllm pull" in refused.stderr
    assert server.stop() == 0


def test_without_the_library_its_name_is_told(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ModuleNotFoundError")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    ended = run("pull", "some/model:F16")
    assert (ended.returncode, hub.downloads) == (2, [])
    assert "pip install 'snapllm[hub]'" in ended.stderr
