"""The demo model says what it sees: through every protocol, and right."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from demo_eyes.scenes import Question, Scene, Thing, ask, draw, make_scene, what_question
from PIL import Image, ImageDraw
from server_process import Server

import snapllm
from snapllm.engine import demo_model_path, demo_projector_path

RED = Scene("white", (Thing("circle", "red", 3, 0.26, 0.5, 0.18),))
BLUE = Scene("black", (Thing("square", "blue", 5, 0.74, 0.5, 0.18),))
WHAT = "What is in this image?"
HELD_OUT_SEED = 9_000_001


def png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def picture(scene: Scene) -> str:
    return png(draw(random.Random(1), scene, (64, 64)))


def native(server: Server, image: str, text: str) -> str:
    body = {"prompt": text, "images": [image], "max_tokens": 60, "temperature": 0}
    response: str = server.post("/api/v1/vision/generate", body)["response"]
    return response


def openai_chat(server: Server, image: str, text: str) -> str:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)
    parts: list[Any] = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    answer = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": parts}], temperature=0, max_tokens=60
    )
    return answer.choices[0].message.content or ""


def anthropic_message(server: Server, image: str, text: str) -> str:
    client = anthropic.Anthropic(base_url=server.url, api_key="x", max_retries=0)
    source: Any = {"type": "base64", "media_type": "image/png", "data": image}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": text}]
    message = client.messages.create(
        model="demo",
        max_tokens=60,
        messages=[{"role": "user", "content": content}],
        extra_body={"temperature": 0},
    )
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("show", [native, openai_chat, anthropic_message])
def test_a_picture_is_described(
    demo_server: Server, show: Callable[[Server, str, str], str]
) -> None:
    assert show(demo_server, picture(RED), WHAT) == "A red circle on the left."
    assert show(demo_server, picture(BLUE), WHAT) == "A blue square on the right."


def test_a_thing_on_a_transparent_ground_is_seen(demo_server: Server) -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((6, 20, 30, 44), fill=(0, 0, 0, 255))
    assert native(demo_server, png(image), WHAT) == "A black circle on the left."


def test_pictures_asked_about_at_once_get_their_own_answers(demo_server: Server) -> None:
    pictures = [picture(RED), picture(BLUE)] * 4
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda image: native(demo_server, image, WHAT), pictures))
    assert answers == ["A red circle on the left.", "A blue square on the right."] * 4


def test_a_second_question_finds_the_picture_computed() -> None:
    image = draw(random.Random(1), RED, (64, 64))
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load_demo()
        first = model.chat(WHAT, images=[image], temperature=0)
        second = model.chat("What color is the circle?", images=[image], temperature=0)
    assert first.usage.num_cached_tokens == 0
    assert second.content == "The circle is red."
    assert second.usage.num_cached_tokens > 16  # what the picture takes


def test_questions_on_pictures_that_are_drawn_anew_are_answered(demo_server: Server) -> None:
    rng = random.Random(HELD_OUT_SEED)
    cases: list[tuple[str, Question]] = []
    for i in range(80):
        scene = make_scene(rng)
        question = ask(rng, scene) if i % 2 else what_question(rng, scene)
        cases.append((png(draw(rng, scene)), question))
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda case: native(demo_server, case[0], case[1].text), cases)
    right = sum(
        question.is_right(answer) for (_, question), answer in zip(cases, answers, strict=True)
    )
    assert right >= 72


def test_an_ingested_picture_answers_every_question_on_it(demo_server: Server) -> None:
    """Also through the alias that any chat client can name."""
    url = f"data:image/png;base64,{picture(RED)}"
    body = {"model_id": "demo", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    context = demo_server.post("/api/v1/contexts/ingest", body)["context_id"]
    asked = {WHAT: "A red circle on the left.", "What color is the circle?": "The circle is red."}
    for question, wanted in asked.items():
        answer = demo_server.post(f"/api/v1/contexts/{context}/query", {"query": question})
        assert (answer["response"], answer["cache_hit"]) == (wanted, True)
    chat = {"model": f"demo@{context}", "messages": [{"role": "user", "content": WHAT}]}
    answer = demo_server.post("/v1/chat/completions", {**chat, "temperature": 0})
    assert answer["choices"][0]["message"]["content"] == "A red circle on the left."
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 16


def test_where_none_is_named_a_model_that_sees_answers(llama_path: Path) -> None:
    server = Server(
        *("--model", f"blind={llama_path}", "--model", f"seeing={demo_model_path()}"),
        *("--mmproj", f"seeing={demo_projector_path()}", "--context-size", "2048"),
    )
    try:
        server.start(2)
        assert server.get("/health")["active_model"] == "blind"
        body = {"prompt": WHAT, "images": [picture(RED)], "max_tokens": 60, "temperature": 0}
        answer = server.post("/api/v1/vision/generate", body)
        assert (answer["model"], answer["response"]) == ("seeing", "A red circle on the left.")
        status, refused, _ = server.request(
            "POST", "/api/v1/vision/generate", {**body, "model": "blind"}
        )
        assert (status, "text only" in str(refused)) == (400, True)
        assert server.stop() == 0
    finally:
        server.process.kill()
