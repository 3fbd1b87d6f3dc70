"""Images over HTTP: the native endpoint as specified, and both SDKs."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import numpy as np
import openai
import pytest
from nano_projectors import make_nano_projector
from PIL import Image
from server_process import Server


def png(seed: int, size: int = 32) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def seeing(llama_path: Path, model_dir: Path) -> Iterator[Server]:
    """A server with the models `eyes`, which takes images, and `blind`."""
    mmproj = make_nano_projector(model_dir / "mmproj.gguf")
    server = Server(
        *("--model", f"eyes={llama_path}", "--mmproj", f"eyes={mmproj}"),
        *("--model", f"blind={llama_path}", "--image-host", "images.example.org"),
    )
    try:
        yield server.start(2)
        assert server.process.poll() is None, "the server died during the tests"
        assert server.stop() == 0
    finally:
        server.process.kill()


def generate(server: Server, **fields: Any) -> tuple[int, Any]:
    body = {"prompt": "What is it?", "images": [png(1)], "max_tokens": 16, "temperature": 0}
    status, answer, _ = server.request("POST", "/api/v1/vision/generate", body | fields)
    return status, answer


def test_the_native_endpoint_answers_as_specified(seeing: Server) -> None:
    status, answer = generate(seeing)
    assert status == 200, answer
    assert answer["status"] == "success"
    assert answer["model"] == "eyes"  # the active one
    assert answer["response"]
    assert answer["generation_time_s"] > 0
    assert answer["tokens_per_second"] > 0
    # With a data URL's prefix it is the same image, and known by now.
    status, again = generate(seeing, images=[f"data:image/png;base64,{png(1)}"])
    assert status == 200 and again["response"] == answer["response"]
    assert again["usage"]["cached_tokens"] > 16
    _, other = generate(seeing, images=[png(2)])
    assert other["response"] != answer["response"]
    _, both = generate(seeing, images=[png(1), png(2)])
    assert both["usage"]["prompt_tokens"] == answer["usage"]["prompt_tokens"] + 16


def test_the_native_stream_is_the_answer(seeing: Server) -> None:
    _, whole = generate(seeing)
    status, text = generate(seeing, stream=True)
    assert status == 200
    *events, last = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert last == "[DONE]" and len(events) > 2
    assert "".join(json.loads(event).get("token", "") for event in events) == whole["response"]


def bomb() -> str:
    """A PNG that claims to be 100,000 pixels wide and high."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = b"IHDR" + header
    import zlib

    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return base64.b64encode(data + struct.pack(">I", 0) + b"IDAT").decode()


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"images": []}, 400, "images"),
        ({"images": "abc"}, 400, "images"),
        ({"images": ["%%%"]}, 400, "images[0]"),
        ({"images": [png(1)[:100]]}, 400, "images[0]"),
        (
            {"images": [base64.b64encode(b"hello").decode()]},
            400,
            "images[0]",
        ),
        ({"images": [png(1), bomb()]}, 400, "images[1]"),
        ({"images": ["http://127.0.0.1/a.png"]}, 400, "images[0]"),
        ({"images": ["https://images.example.org.evil.org/a"]}, 400, "images[0]"),
        ({"images": ["file:///etc/passwd"]}, 400, "images[0]"),
        ({"images": [png(1)] * 65}, 400, "images"),
        ({"prompt": ""}, 400, "prompt"),
        ({"raw": True}, 400, "raw"),
        ({"model": "blind"}, 400, "images[0]"),
        ({"model": "nobody"}, 404, "model"),
    ],
)
def test_bad_images_are_refused(
    seeing: Server, fields: dict[str, Any], status: int, param: str | None
) -> None:
    found, answer = generate(seeing, **fields)
    assert found == status, answer
    if param is not None:
        assert answer["error"]["param"] == param
    assert generate(seeing)[0] == 200


def test_the_openai_client_shows_images(seeing: Server) -> None:
    client = openai.OpenAI(base_url=seeing.url + "/v1", api_key="x", max_retries=0)

    def ask(model: str, *urls: str) -> str | None:
        parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        parts.append({"type": "text", "text": "What is it?"})
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": parts}],
            temperature=0,
            max_tokens=16,
        )
        return answer.choices[0].message.content

    urls = [f"data:image/png;base64,{png(seed)}" for seed in range(2)]
    assert ask("eyes", urls[0]) == ask("eyes", urls[0]) != ask("eyes", urls[1])
    response = client.responses.create(
        model="eyes",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": urls[0], "detail": "auto"},
                    {"type": "input_text", "text": "What is it?"},
                ],
            }
        ],
        temperature=0,
        max_output_tokens=16,
    )
    assert response.output_text == ask("eyes", urls[0])
    for model, url in (("blind", urls[0]), ("eyes", "data:image/png;base64,AAAA")):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(model, url)
        assert caught.value.param == "messages[0].content[0].image_url"
    shown: Any = [{"type": "input_image", "image_url": urls[0], "detail": "auto"}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="blind", input=[{"role": "user", "content": shown}])
    assert caught.value.param == "input[0].content[0].image_url"


def test_the_anthropic_client_shows_images(seeing: Server) -> None:
    client = anthropic.Anthropic(base_url=seeing.url, api_key="x", max_retries=0)

    def ask(model: str, data: str) -> str:
        source: Any = {"type": "base64", "media_type": "image/png", "data": data}
        message = client.messages.create(
            model=model,
            max_tokens=16,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": source},
                        {"type": "text", "text": "What is it?"},
                    ],
                }
            ],
            extra_body={"temperature": 0},
        )
        return "".join(block.text for block in message.content if block.type == "text")

    assert ask("eyes", png(1)) == ask("eyes", png(1)) != ask("eyes", png(2))
    for model, data in (("blind", png(1)), ("eyes", "AAAA")):
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[0\].source"):
            ask(model, data)


def test_a_vision_model_is_loaded_and_listed(
    seeing: Server, llama_path: Path, model_dir: Path
) -> None:
    body = {
        "model_id": "late",
        "file_path": str(llama_path),
        "model_type": "vision",
        "mmproj_path": str(model_dir / "mmproj.gguf"),
    }
    answer = seeing.post("/api/v1/models/load", body)
    assert answer["model_type"] == "Vision LLM"
    types = {entry["id"]: entry["type"] for entry in seeing.get("/api/v1/models")["models"]}
    assert types == {"eyes": "vision", "blind": "llm", "late": "vision"}
    assert generate(seeing, model="late")[0] == 200
    seeing.post("/api/v1/models/unload", {"model_id": "late"})
    for wrong, status in (
        ({"mmproj_path": None}, 400),
        ({"model_type": "llm"}, 400),
        ({"mmproj_path": str(llama_path)}, 400),
        ({"mmproj_path": "/no/such/file.gguf"}, 400),
    ):
        found, refusal, _ = seeing.request("POST", "/api/v1/models/load", body | wrong)
        assert found == status, refusal
        assert refusal["error"]["code"] in ("invalid_request", "invalid_model", "file_not_found")
