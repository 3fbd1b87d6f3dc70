"""What is read of a request's images: once, and not on the threads that texts are prepared on."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nano_models import make_nano_model
from nano_projectors import make_nano_projector
from PIL import Image

import snapllm
from snapllm import _runner
from snapllm._media import MediaPolicy, image_data_url
from snapllm.conversation import ContentPart, ImageUrl, Message
from snapllm.params import ChatRequest, SamplingOptions

URLS = [f"http://pictures.example/{i}" for i in range(3)]


class Fetched:
    """Makes pictures of URLs, and notes which and where."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.threads: set[str] = set()

    def __call__(self, url: str) -> bytes:
        self.urls.append(url)
        self.threads.add(threading.current_thread().name)
        file = io.BytesIO()
        pixels = np.full((8, 8, 3), 40 * URLS.index(url), np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[snapllm.Engine]:
    folder: Path = tmp_path_factory.mktemp("vision")
    projector = make_nano_projector(folder / "mmproj.gguf", "mlp")
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(make_nano_model(folder / "m.gguf", "llama"), "m", mmproj_path=projector)
        yield engine


@pytest.fixture
def fetched(engine: snapllm.Engine, monkeypatch: pytest.MonkeyPatch) -> Fetched:
    fetched = Fetched()
    monkeypatch.setattr(engine.runner, "media_policy", MediaPolicy(fetch=fetched))
    return fetched


def shown(url: str) -> ContentPart:
    return ContentPart("image_url", image_url=ImageUrl(url))


def said(text: str) -> ContentPart:
    return ContentPart("text", text)


def chat(messages: list[Message]) -> ChatRequest:
    sampling = SamplingOptions(temperature=0)
    return ChatRequest(model="m", messages=messages, max_tokens=4, sampling=sampling)


def test_the_images_of_a_marked_request_are_fetched_once(
    engine: snapllm.Engine, fetched: Fetched
) -> None:
    messages = [
        Message("user", [shown(URLS[0]), said("And this?"), shown(URLS[1])]),
        Message("assistant", "Yes."),
        Message("user", [shown(URLS[2]), said("What is it?")]),
    ]
    beginning = [Message("user", [shown(URLS[0]), said("And this?")])]

    async def run() -> None:
        runner = engine.runner
        lowered, [num_marked] = await runner.lower_marked(chat(messages), [beginning])
        [answer] = await runner.start_lowered(lowered, stream=False)
        events = []
        while batch := await answer.next():
            events += batch
        assert answer.num_prompt_tokens == len(lowered.tokens)
        assert answer.finish_reason in ("stop", "length")
        assert fetched.urls == URLS
        alone = (await runner.lower(chat(beginning))).tokens
        assert 0 < num_marked <= len(alone)
        assert lowered.tokens[:num_marked] == alone[:num_marked]
        assert lowered.tokens[num_marked] != alone[num_marked]
        assert lowered.tokens == (await runner.lower(chat(messages))).tokens

    asyncio.run(run())
    assert fetched.threads == {"snapllm-media"}


def test_the_pictures_of_a_context_are_decoded_beside_texts(
    engine: snapllm.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    engine.contexts.ingest([shown(image_data_url(picture, "x"))], "m", name="album")
    used: list[str] = []
    lower_chat = _runner.lower_chat

    def noting(*arguments: object) -> object:
        used.append(threading.current_thread().name)
        return lower_chat(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_runner, "lower_chat", noting)

    async def run() -> None:
        asked = [Message("user", "What is it?")]
        [answer] = await engine.runner.start_chat(
            ChatRequest(model="m@album", messages=asked, max_tokens=1), stream=False
        )
        answer.close()
        await engine.runner.lower(ChatRequest(model="m@album", messages=asked))

    asyncio.run(run())
    assert used == ["snapllm-media"] * 2
