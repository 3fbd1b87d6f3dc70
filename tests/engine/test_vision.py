"""Images in chats: what they change, what is reused of them, and what is refused."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from nano_models import make_nano_model
from nano_projectors import IMAGE_SIZE, NUM_TOKENS, Projector, make_nano_projector
from PIL import Image
from ties import num_decided

import snapllm
from snapllm import _probe

KINDS: list[tuple[str, Projector]] = [
    ("llama", "mlp"),
    ("gemma3", "gemma3"),
    ("qwen2vl", "qwen2vl_merger"),
]


def picture(seed: int, size: int = IMAGE_SIZE) -> np.ndarray:
    """Blocks of random colours."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.kron(blocks, np.ones((size // 4, size // 4, 1), np.uint8))


def ask(model: snapllm.Model, *images: np.ndarray, text: str = "What is it?", **options: object):
    options = {"temperature": 0, "max_tokens": 24, "logit_bias": {}} | options
    return model.chat(text, images=images, **options)  # type: ignore[arg-type]


def num_encoded(engine: snapllm.Engine, model: snapllm.Model) -> int:
    return next(s.num_encoded_media for s in engine.stats().models if s.id == model.id)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("vision")
    return {
        projector: (
            make_nano_model(folder / f"{projector}.gguf", architecture),  # type: ignore[arg-type]
            make_nano_projector(folder / f"mmproj-{projector}.gguf", projector),
        )
        for architecture, projector in KINDS
    }


@pytest.fixture(scope="module")
def seeing(files: dict[str, tuple[Path, Path]]) -> Iterator[snapllm.Engine]:
    """An engine with a model of each kind, under the projector's name."""
    with snapllm.Engine(num_threads=1) as engine:
        for kind, (path, mmproj_path) in files.items():
            engine.load(path, kind, mmproj_path=mmproj_path)
        yield engine


@pytest.fixture(params=[projector for _, projector in KINDS])
def model(request: pytest.FixtureRequest, seeing: snapllm.Engine) -> snapllm.Model:
    return seeing.model(request.param)


def test_the_model_says_that_it_sees(model: snapllm.Model) -> None:
    assert model.info.has_vision
    assert not model.info.has_audio
    assert model.info.projector_bytes > 10_000


def test_other_images_get_other_answers_and_the_same_the_same(model: snapllm.Model) -> None:
    first, second = ask(model, picture(1)), ask(model, picture(2))
    blind = ask(model)
    assert len({first.content, second.content, blind.content}) == 3
    assert ask(model, picture(1)).content == first.content
    assert ask(model, picture(1), reuse_prefix=False).content == first.content
    if model.id in NUM_TOKENS:
        more = first.usage.num_prompt_tokens - blind.usage.num_prompt_tokens
        assert more >= NUM_TOKENS[model.id]


def test_several_images_count_in_their_order(model: snapllm.Model) -> None:
    a, b = picture(1), picture(2)
    answers = {ask(model, *images).content for images in ((a,), (a, b), (b, a), (a, b, a))}
    assert len(answers) == 4


def test_one_picture_needs_no_list(model: snapllm.Model, tmp_path: Path) -> None:
    """An array of three dimensions is one, and not as many as it is high."""
    image = picture(5)
    Image.fromarray(image).save(tmp_path / "p.png")
    sources = [image, Image.fromarray(image), tmp_path / "p.png", str(tmp_path / "p.png")]
    sources += [(tmp_path / "p.png").read_bytes(), image[None]]
    wanted = ask(model, image)
    for source in sources:
        answer = model.chat("What is it?", images=source, temperature=0, max_tokens=24)
        assert answer.usage.num_prompt_tokens == wanted.usage.num_prompt_tokens
        assert answer.content == wanted.content
    with pytest.raises(snapllm.InvalidRequestError, match="shape"):
        model.chat("What is it?", images=np.zeros((2, 8, 9), np.uint8))


def test_images_of_any_size_are_taken(model: snapllm.Model) -> None:
    for shape in ((1, 1), (1, 50), (50, 1), (7, 13), (300, 200), (2, 200)):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        assert ask(model, image, max_tokens=2).usage.num_generated_tokens > 0


def test_a_second_question_to_an_image_reuses_it(
    model: snapllm.Model, seeing: snapllm.Engine
) -> None:
    image = picture(30)
    history = [{"role": "user", "content": "Look."}]
    first = model.chat(history, images=[image], temperature=0, max_tokens=8)
    encoded = num_encoded(seeing, model)
    history += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "And what colour has it?"},
    ]
    # The image stays where it was: in the first message.
    url = "data:image/png;base64," + png_base64(image)
    shown = {"type": "image_url", "image_url": {"url": url}}
    history[0] = {"role": "user", "content": [shown, {"type": "text", "text": "Look."}]}  # type: ignore[dict-item]
    second = model.chat(history, temperature=0, max_tokens=24)
    assert num_encoded(seeing, model) == encoded
    assert second.usage.num_cached_tokens > NUM_TOKENS.get(model.id, 16)
    fresh = model.chat(history, temperature=0, max_tokens=24, reuse_prefix=False)
    assert fresh.usage.num_cached_tokens == 0
    assert fresh.content == second.content


def png_base64(image: np.ndarray) -> str:
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def tokens_of(answer: snapllm.ChatResult) -> list[int]:
    return [entry.token for entry in answer.logprobs]


def test_images_batched_together_get_the_answers_they_get_alone(model: snapllm.Model) -> None:
    images = [picture(seed) for seed in range(40, 46)]
    alone = [ask(model, image, reuse_prefix=False, num_logprobs=2) for image in images]
    assert len({answer.content for answer in alone}) == len(alone)
    together: dict[int, list[int]] = {}

    def run(i: int) -> None:
        together[i] = tokens_of(ask(model, images[i], num_logprobs=2))

    def run_text() -> None:
        model.generate("Once upon a time", temperature=0, max_tokens=100, ignore_eos=True)

    threads = [threading.Thread(target=run_text)]
    threads += [threading.Thread(target=run, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, answer in enumerate(alone):
        gaps = [entry.top[0].logprob - entry.top[1].logprob for entry in answer.logprobs]
        end = num_decided(gaps)
        assert together[i][:end] == tokens_of(answer)[:end]


def test_what_was_seen_is_known_after_a_restart(
    files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    path, mmproj_path = files["mlp"]
    answers = []
    for run in range(2):
        with snapllm.Engine(num_threads=1, workspace=tmp_path / "work") as engine:
            model = engine.load(path, "eyes", mmproj_path=mmproj_path)
            answers.append(ask(model, picture(50), text="Tell me what you see in this picture."))
            assert num_encoded(engine, model) == 1 - run
    assert answers[0].content == answers[1].content
    assert answers[1].usage.num_cached_tokens > NUM_TOKENS["mlp"]


@pytest.mark.parametrize(("architecture", "projector"), KINDS)
def test_text_is_reused_with_a_projector_and_without(
    files: dict[str, tuple[Path, Path]], architecture: str, projector: str
) -> None:
    """But for M-RoPE, where a model keeps its KV in another form once it sees."""
    path, mmproj_path = files[projector]
    text, options = "What a projector does not change. " * 20, {"num_logprobs": 0}
    for first, second in ((mmproj_path, ""), ("", mmproj_path)):
        with snapllm.Engine(num_threads=1) as engine:
            ask(engine.load(path, "first", mmproj_path=first), text=text)
            model = engine.load(path, "second", mmproj_path=second)
            reused = ask(model, text=text, **options)
            alone = ask(model, text=text, reuse_prefix=False, **options)
        assert (reused.usage.num_cached_tokens > 0) == (architecture != "qwen2vl")
        assert alone.usage.num_cached_tokens == 0
        one, other = (
            [(each.token, each.logprob) for each in answer.logprobs] for answer in (reused, alone)
        )
        assert one == other


def test_another_projector_sees_for_itself(
    files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    path, mmproj_path = files["mlp"]
    other_path = make_nano_projector(tmp_path / "other.gguf", "mlp", seed=9)
    with snapllm.Engine(num_threads=1) as engine:
        one = engine.load(path, "one", mmproj_path=mmproj_path)
        other = engine.load(path, "other", mmproj_path=other_path)
        assert ask(one, picture(1)).content != ask(other, picture(1)).content
        assert ask(other, picture(1), text="again").usage.num_cached_tokens > 0
        with pytest.raises(snapllm.InvalidRequestError, match="other options"):
            engine.load(path, "one", mmproj_path=other_path)


def test_an_image_stays_in_its_place_behind_the_text_of_a_control_token(
    model: snapllm.Model,
) -> None:
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 24, "reuse_prefix": False}

    def ask_after(said: str, seed: int) -> snapllm.ChatResult:
        turns = [("user", said), ("assistant", "Yes."), ("user", "What is it?")]
        history = [{"role": role, "content": content} for role, content in turns]
        return model.chat(history, images=[picture(seed)], **options)

    first, second = (ask_after("x<|im_end|>y", seed) for seed in (1, 2))
    assert first.content != second.content
    assert first.usage.num_prompt_tokens > ask_after("x y", 1).usage.num_prompt_tokens
    assert ask_after("x<|im_end|>y", 1).content == first.content


def test_a_marker_in_a_text_is_only_text(seeing: snapllm.Engine) -> None:
    model = seeing.model("mlp")
    result = ask(model, picture(1), text="<__media__> <media-00> what?")
    assert result.usage.num_generated_tokens > 0


@pytest.mark.parametrize("source", [b"no image", "/no/such.png", 5, np.zeros((4, 4), np.float32)])
def test_what_is_no_image_is_refused(seeing: snapllm.Engine, source: object) -> None:
    with pytest.raises(snapllm.InvalidRequestError) as caught:
        ask(seeing.model("mlp"), source)  # type: ignore[arg-type]
    assert caught.value.param == "images[0]"


def test_an_open_file_or_a_data_url_is_refused_as_what_it_is(seeing: snapllm.Engine) -> None:
    model: Any = seeing.model("mlp")
    for source, message in (
        (io.BytesIO(b"line\nline\n"), "not BytesIO"),
        ("data:image/png;base64," + "A" * 10_000, "a data URL is no path"),
    ):
        for images in (source, [source]):
            with pytest.raises(snapllm.InvalidRequestError, match=message) as caught:
                model.chat("What is this?", images=images)
            assert caught.value.param == "images[0]"
            assert len(str(caught.value)) < 200


def test_a_model_without_eyes_refuses_images(files: dict[str, tuple[Path, Path]]) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(files["mlp"][0], "blind")
        with pytest.raises(snapllm.InvalidRequestError, match="text only") as caught:
            ask(model, picture(1))
        assert caught.value.param == "images[0]"
        assert ask(model).content


def test_an_image_that_does_not_fit_the_context_is_refused(
    files: dict[str, tuple[Path, Path]],
) -> None:
    path, mmproj_path = files["qwen2vl_merger"]
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path, "eyes", mmproj_path=mmproj_path, context_size=256)
        with pytest.raises(snapllm.ContextLengthExceededError):
            ask(model, picture(1, 512))


def test_a_model_comes_back_with_its_eyes(files: dict[str, tuple[Path, Path]]) -> None:
    path, mmproj_path = files["mlp"]
    with snapllm.Engine(num_threads=1, keep_alive_s=0.05) as engine:
        model = engine.load(path, "eyes", mmproj_path=mmproj_path)
        first = ask(model, picture(1)).content
        for _ in range(200):
            if model.info.state == "evicted":
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail("it was never evicted")
        assert ask(model, picture(1)).content == first


def damaged(path: Path, damage: str, source: Path) -> Path:
    data = bytearray(source.read_bytes())
    if damage == "truncated":
        del data[len(data) * 2 // 3 :]
    elif damage == "empty":
        data.clear()
    elif damage == "noise":
        data[:] = random.Random(1).randbytes(1000)
    else:
        # The name of a tensor that must be there.
        at = data.index(damage.encode())
        data[at] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "empty",
        "noise",
        "v.patch_embd",
        "v.position_embd",
        "v.blk.0.attn_out",
        "mm.0.w",
    ],
)
def test_a_damaged_projector_is_refused(
    files: dict[str, tuple[Path, Path]], tmp_path: Path, damage: str
) -> None:
    path, mmproj_path = files["mlp"]
    bad = damaged(tmp_path / "bad.gguf", damage, mmproj_path)
    with snapllm.Engine(num_threads=1) as engine:
        with pytest.raises(snapllm.InvalidModelError):
            engine.load(path, "eyes", mmproj_path=bad)
        assert engine.load(path, "eyes", mmproj_path=mmproj_path).info.has_vision


def test_a_projector_that_loads_but_cannot_compute_is_refused(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf", "gemma3")
    half = gguf.GGMLQuantizationType.F16
    bad = make_nano_projector(tmp_path / "bad.gguf", "gemma3", position_kind=half)
    refused = pytest.raises(snapllm.InvalidModelError, match="trying it out")
    with snapllm.Engine(num_threads=1) as engine, refused:
        engine.load(path, "eyes", mmproj_path=bad)


def test_a_file_that_is_no_projector_for_the_model_is_refused(
    files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    path, _ = files["mlp"]
    wide = make_nano_projector(tmp_path / "wide.gguf", "mlp", text_width=128)
    with snapllm.Engine(num_threads=1) as engine:
        with pytest.raises(snapllm.InvalidModelError, match="mismatch"):
            engine.load(path, "eyes", mmproj_path=wide)
        with pytest.raises(snapllm.InvalidModelError, match="not a projector"):
            engine.load(path, "eyes", mmproj_path=path)
        with pytest.raises(snapllm.InvalidModelError, match="belongs to a model: its mmproj_path"):
            engine.load(wide, "eyes")
        with pytest.raises(snapllm.ModelFileNotFoundError):
            engine.load(path, "eyes", mmproj_path=tmp_path / "nothing.gguf")
        with pytest.raises(snapllm.InvalidModelError):
            engine.load(wide, "projector")


def test_a_projector_with_sizes_that_do_not_fit_is_refused(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf", "llama")
    good = make_nano_projector(tmp_path / "good.gguf")
    reader = gguf.GGUFReader(good)
    for key, value in (
        ("clip.vision.patch_size", 0),
        ("clip.vision.patch_size", 64),
        ("clip.vision.image_size", 1 << 30),
        ("clip.vision.attention.head_count", 0),
        ("clip.vision.attention.head_count", 5),
        ("clip.vision.block_count", 1 << 20),
        ("clip.vision.embedding_length", 48),
    ):
        data = bytearray(good.read_bytes())
        field = reader.fields[key]
        at = field.offset + sum(len(part.tobytes()) for part in field.parts[:-1])
        data[at : at + 4] = value.to_bytes(4, "little")
        bad = tmp_path / "bad.gguf"
        bad.write_bytes(data)
        with snapllm.Engine(num_threads=1) as engine, pytest.raises(snapllm.InvalidModelError):
            engine.load(path, "eyes", mmproj_path=bad)


def test_a_projector_is_tried_out_with_nothing_of_the_current_folder(
    files: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, mmproj_path = files["mlp"]
    monkeypatch.setattr(_probe, "_passed", set())
    monkeypatch.chdir(tmp_path)
    for name in ("ctypes.py", "logging.py", "subprocess.py"):
        (tmp_path / name).write_text(f"open({name + '.ran'!r}, 'w')\nraise SystemExit(1)")
    _probe.check_projector(str(path), str(mmproj_path))
    assert _probe._passed
    assert not list(tmp_path.glob("*.ran"))


def test_a_projector_that_cannot_be_tried_out_is_loaded_with_a_warning(
    files: dict[str, tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, mmproj_path = files["mlp"]
    monkeypatch.setattr(_probe, "_passed", set())
    for program in ("/bin/false", "/nowhere/python"):
        caplog.clear()
        monkeypatch.setattr("sys.executable", program)
        _probe.check_projector(str(path), str(mmproj_path))
        [line] = caplog.records
        assert line.levelname == "WARNING"
        assert "without having been tried out" in line.getMessage()
    assert not _probe._passed
