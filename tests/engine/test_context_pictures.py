"""Documents with pictures: ingested once, and asked as if they were sent whole."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nano_models import Architecture, make_nano_model
from nano_projectors import Projector, make_nano_projector
from PIL import Image
from ties import num_decided

import snapllm
from snapllm.params import ChatOptions

OPTIONS: ChatOptions = {"max_tokens": 24, "ignore_eos": True, "num_logprobs": 2}
KINDS: list[tuple[Architecture, Projector]] = [
    ("llama", "mlp"),
    ("gemma3", "gemma3"),
    ("qwen2vl", "qwen2vl_merger"),
]


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8)


def data_url(seed: int) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


DOCUMENT: list[dict[str, Any]] = [
    {"type": "text", "text": "The first picture shows the house. " * 8},
    {"type": "image_url", "image_url": {"url": data_url(1)}},
    {"type": "text", "text": "The second shows the garden."},
    {"type": "image_url", "image_url": {"url": data_url(2)}},
]


class Files:
    def __init__(self, folder: Path, architecture: Architecture, projector: Projector) -> None:
        self.model = make_nano_model(folder / "m.gguf", architecture)
        self.mmproj = make_nano_projector(folder / "mmproj.gguf", projector)
        self.other_mmproj = make_nano_projector(folder / "other.gguf", projector, seed=9)

    def open(
        self, workspace: Path | None = None, mmproj_path: Path | None = None
    ) -> snapllm.Engine:
        engine = snapllm.Engine(num_threads=1, workspace=workspace)
        engine.load(self.model, "m", mmproj_path=mmproj_path or self.mmproj, context_size=2048)
        return engine


@pytest.fixture(params=KINDS, ids=lambda kind: kind[0])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    yield Files(tmp_path, *request.param)


def num_encoded(engine: snapllm.Engine) -> int:
    return engine.stats().models[0].num_encoded_media


def decided(answer: snapllm.ChatResult) -> list[int]:
    gaps = [entry.top[0].logprob - entry.top[1].logprob for entry in answer.logprobs or ()]
    return [entry.token for entry in (answer.logprobs or ())[: num_decided(gaps)]]


def ask(engine: snapllm.Engine, question: str, **options: Any) -> snapllm.ChatResult:
    return engine.contexts.query("album", question, **OPTIONS, **options).answer


def check_cached(engine: snapllm.Engine, question: str, wanted: list[int]) -> None:
    """The question is answered as wanted, and nothing of the document is computed."""
    encoded, length = num_encoded(engine), len(engine.contexts.get("album").record.tokens)
    answer = ask(engine, question)
    assert decided(answer)[: len(wanted)] == wanted[: len(decided(answer))]
    assert answer.usage.num_cached_tokens >= length
    assert num_encoded(engine) == encoded


def test_questions_are_answered_from_every_tier_and_after_a_restart(
    files: Files, tmp_path: Path
) -> None:
    workspace, question = tmp_path / "workspace", "Is the house big?"
    with files.open(workspace) as engine:
        view = engine.contexts.ingest(DOCUMENT, "m", name="album")
        assert len({token for token in view.record.tokens if token < 0}) > 2
        assert num_encoded(engine) == 2
        wanted = decided(ask(engine, question, reuse_prefix=False))
        assert wanted
        for tier in ("hot", "warm", "cold"):
            assert engine.contexts.move("album", tier).tier == tier
            check_cached(engine, question, wanted)
    with files.open(workspace) as engine:
        check_cached(engine, question, wanted)


def test_another_projector_sees_a_document_anew_and_then_knows_it(
    files: Files, tmp_path: Path
) -> None:
    workspace, question = tmp_path / "workspace", "Is the house big?"
    with files.open(workspace) as engine:
        tokens = engine.contexts.ingest(DOCUMENT, "m", name="album").record.tokens
    with files.open(workspace, files.other_mmproj) as engine:
        wanted = decided(ask(engine, question))
        assert num_encoded(engine) == 2
        assert engine.contexts.get("album").record.tokens != tokens
        check_cached(engine, question, wanted)


def test_the_answer_is_that_of_a_chat_with_the_same_pictures(files: Files) -> None:
    question = "What grows there?"
    with files.open() as engine:
        engine.contexts.ingest(DOCUMENT, "m", name="album")
        parts = [*DOCUMENT, {"type": "text", "text": question}]
        chat = engine.model("m").chat(
            [{"role": "user", "content": parts}], temperature=0, reuse_prefix=False, **OPTIONS
        )
        assert ask(engine, question).usage.num_prompt_tokens == chat.usage.num_prompt_tokens
        check_cached(engine, question, decided(chat))


def test_pictures_come_from_files_bytes_arrays_and_pillow(tmp_path: Path) -> None:
    files = Files(tmp_path, "llama", "mlp")
    image = Image.fromarray(pixels(3))
    image.save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    sources = [tmp_path / "p.png", data, pixels(3), image]
    with files.open() as engine:
        views = [engine.contexts.ingest("A house.", "m", images=[source]) for source in sources]
        assert len({tuple(view.record.tokens) for view in views}) == 1
        views += [engine.contexts.ingest("A house.", "m", images=source) for source in sources]
        assert len({tuple(view.record.tokens) for view in views}) == 1
        assert num_encoded(engine) == 1  # the same picture again and again
        other = engine.contexts.ingest("A house.", "m", images=[pixels(4)])
        assert other.record.tokens != views[0].record.tokens


def test_a_document_with_pictures_grows_forks_and_ships(tmp_path: Path) -> None:
    files, question = Files(tmp_path, "llama", "mlp"), "And the roof?"
    with files.open() as engine:
        engine.contexts.ingest(DOCUMENT, "m", name="album")
        encoded = num_encoded(engine)
        engine.contexts.append("album", "The roof is red.")
        assert num_encoded(engine) == encoded
        wanted = decided(ask(engine, question, reuse_prefix=False))
        check_cached(engine, question, wanted)
        fork = engine.contexts.fork("album", name="copy")
        assert fork.num_cached_tokens == len(fork.record.tokens)
        engine.contexts.export_file("album", tmp_path / "album.snapctx")
    with files.open() as engine:
        view = engine.contexts.import_file(tmp_path / "album.snapctx")
        assert view.num_cached_tokens == len(view.record.tokens)
        check_cached(engine, question, wanted)
        assert num_encoded(engine) == 0


def test_what_is_no_picture_or_has_no_eyes_is_refused(tmp_path: Path, llama_path: Path) -> None:
    bad = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    with Files(tmp_path, "llama", "mlp").open() as engine:
        with pytest.raises(snapllm.InvalidRequestError, match=r"content\[0\]\.image_url"):
            engine.contexts.ingest(bad, "m")
        for content, field in (
            ([], "content"),
            ([{"type": "text", "text": ""}], "content"),
            ([{"type": "text"}], r"content\[0\]\.text"),
            ([{"type": "image_url"}], r"content\[0\]\.image_url"),
            ([{"type": "video", "text": "x"}], r"content\[0\]\.type"),
        ):
            with pytest.raises(snapllm.InvalidRequestError, match=field):
                engine.contexts.ingest(content, "m")
        texts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        assert engine.contexts.ingest(texts, "m", name="texts").record.content == "one\ntwo"
        engine.contexts.delete("texts")
        engine.load(llama_path, "blind", context_size=1024)
        with pytest.raises(snapllm.InvalidRequestError, match="text only"):
            engine.contexts.ingest(DOCUMENT, "blind")
        assert engine.contexts.list() == []
