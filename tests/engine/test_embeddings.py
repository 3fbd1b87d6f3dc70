"""Embeddings of generative models and of models that only embed."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from nano_models import Architecture, make_embedding_model, make_nano_model
from nano_projectors import make_nano_projector
from ties import decided_tokens

import snapllm
from snapllm import _core

TEXTS = ["The cat sat on the mat.", "A cat is on a mat", "Completely different: 12345 67890", "x"]


def embed(model: snapllm.Model, inputs: object, **options: object) -> np.ndarray:
    return np.array(model.embed(inputs, **options).vectors)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bert(engine: snapllm.Engine, tmp_path_factory: pytest.TempPathFactory) -> snapllm.Model:
    path = make_embedding_model(tmp_path_factory.mktemp("bert") / "bert.gguf")
    return engine.load(path)


@pytest.mark.parametrize("name", ["model", "bert"])
def test_the_vectors_have_length_one_and_are_repeatable(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: snapllm.Model = request.getfixturevalue(name)
    result = model.embed(TEXTS)
    assert result.num_tokens == sum(len(model.tokenize(text)) for text in TEXTS)
    vectors = np.array(result.vectors)
    assert vectors.shape == (len(TEXTS), model.info.embedding_size)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(vectors, embed(model, TEXTS))
    similar = vectors @ vectors.T
    assert (similar[~np.eye(len(TEXTS), dtype=bool)] < 0.9999).all()


@pytest.mark.parametrize("name", ["model", "bert"])
def test_an_input_has_the_same_vector_alone_and_among_others(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: snapllm.Model = request.getfixturevalue(name)
    together = embed(model, TEXTS * 10)
    alone = np.concatenate([embed(model, text) for text in TEXTS])
    assert np.allclose(together, np.tile(alone, (10, 1)), atol=2e-3)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mamba2", "lfm2"])
def test_the_last_token_sees_all_others_and_the_mean_is_the_mean(
    architecture: Architecture, tmp_path: Path
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", architecture)
    with snapllm.Engine(num_threads=1) as engine:
        # 64 tokens a step, so that the input takes several.
        model = engine.load(path, ubatch_tokens=64)
        tokens = [7 * i % 250 for i in range(150)]
        # The vector of the prefix that ends in each token, not yet pooled, but scaled to 1.
        last = [embed(model, tokens[: i + 1], pooling="last")[0] for i in range(len(tokens))]
        assert not np.allclose(last[-1], embed(model, tokens[-1:], pooling="last")[0], atol=0.01)
        mean = embed(model, tokens, pooling="mean")[0]
        expected = np.mean(last, axis=0)
        # All of them have about the same length: their norm's weights are 1.
        cosine = mean @ expected / np.linalg.norm(expected)
        assert cosine > 0.999
        assert np.array_equal(mean, embed(model, tokens, pooling="auto")[0])


def test_a_model_whose_tokens_see_all_others_only_embeds(tmp_path: Path) -> None:
    """It has a KV memory, but a prompt in several batches would be another."""
    path = make_nano_model(tmp_path / "m.gguf", is_causal=False)
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path)
        assert not model.info.supports_generation
        tokens = [7 * i % 250 for i in range(1300)]  # more than a physical batch
        with pytest.raises(snapllm.InvalidRequestError, match="embedding model"):
            model.generate(tokens, max_tokens=1)
        [long, other] = embed(model, [tokens, [*tokens[:-1], 251]])
        assert not np.allclose(long, other, atol=1e-6)
        assert np.allclose(long, embed(model, tokens)[0], atol=1e-6)


def test_fewer_dimensions_are_the_first_ones(model: snapllm.Model) -> None:
    whole, cut = embed(model, "Hello"), embed(model, "Hello", dimensions=8)
    assert cut.shape == (1, 8)
    assert np.allclose(cut[0], whole[0, :8] / np.linalg.norm(whole[0, :8]), atol=1e-6)


def test_tokens_can_be_given_in_place_of_texts(model: snapllm.Model) -> None:
    tokens = [model.tokenize(text) for text in TEXTS]
    assert np.array_equal(embed(model, tokens), embed(model, TEXTS))
    assert np.array_equal(embed(model, tokens[0]), embed(model, TEXTS[0]))


@pytest.mark.parametrize(
    ("inputs", "options", "param"),
    [
        ([], {}, "inputs"),
        ("", {}, "inputs[0]"),
        (["a", ""], {}, "inputs[1]"),
        (["a", [1]], {}, "inputs"),
        ([[1], [-1]], {}, "inputs[1][0]"),
        ("a", {"pooling": "best"}, "pooling"),
        ("a", {"dimensions": 0}, "dimensions"),
        ("a", {"dimensions": -3}, "dimensions"),
        (["a"] * 2049, {}, "inputs"),
    ],
)
def test_bad_arguments_are_named(
    model: snapllm.Model, inputs: object, options: dict[str, object], param: str
) -> None:
    with pytest.raises(snapllm.InvalidRequestError) as caught:
        embed(model, inputs, **options)
    assert caught.value.param == param


def test_what_the_model_cannot_embed_is_refused(model: snapllm.Model, bert: snapllm.Model) -> None:
    with pytest.raises(snapllm.InvalidRequestError, match="dimensions"):
        model.embed("a", dimensions=model.info.embedding_size + 1)
    with pytest.raises(snapllm.InvalidRequestError, match="vocabulary"):
        model.embed([model.info.vocab_size])
    for each in (model, bert):
        limit = each.info.train_context_size
        assert len(embed(each, [5] * limit)) == 1
        with pytest.raises(snapllm.ContextLengthExceededError, match=f"at most {limit}"):
            each.embed(["fits", [5] * (limit + 1)][1:])
        # Much longer texts are refused before all of them is tokenized.
        much = "a" * 50 * limit
        with pytest.raises(snapllm.ContextLengthExceededError, match=str(limit)) as error:
            each.embed(["fits", much])
        assert error.value.message.startswith("inputs[1] has more tokens")
        assert error.value.param == "inputs"
    with pytest.raises(snapllm.InvalidRequestError, match="pooling of its own"):
        bert.embed("a", pooling="last")


def test_an_embedding_model_refuses_to_generate(bert: snapllm.Model) -> None:
    assert not bert.info.supports_generation
    for call in (bert.chat, bert.generate):
        with pytest.raises(snapllm.InvalidRequestError, match="embedding model"):
            call("Hello")


@pytest.mark.parametrize("pooling", [gguf.PoolingType.CLS, gguf.PoolingType.NONE, None])
def test_every_kind_of_pooling_embeds(pooling: gguf.PoolingType | None, tmp_path: Path) -> None:
    path = make_embedding_model(tmp_path / "bert.gguf", pooling=pooling)
    with snapllm.Engine(num_threads=1) as engine:
        vectors = embed(engine.load(path), TEXTS)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert len({vector.tobytes() for vector in vectors}) == len(TEXTS)


def test_a_model_that_ranks_is_refused(tmp_path: Path) -> None:
    path = make_embedding_model(tmp_path / "bert.gguf", pooling=gguf.PoolingType.RANK)
    refused = pytest.raises(snapllm.InvalidModelError, match="ranks")
    with snapllm.Engine(num_threads=1) as engine, refused:
        engine.load(path)


def test_embeddings_and_answers_go_on_beside_each_other(model: snapllm.Model) -> None:
    alone = decided_tokens(model, "Once upon a time", max_tokens=64)
    assert len(alone) > 4
    expected = embed(model, TEXTS)
    answers: list[list[int]] = []

    def generate() -> None:
        answers.append(model.generate("Once upon a time", temperature=0, max_tokens=64).tokens)

    threads = [threading.Thread(target=generate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert np.array_equal(embed(model, TEXTS), expected)
    for thread in threads:
        thread.join()
    assert [tokens[: len(alone)] for tokens in answers] == [alone] * 3


def test_what_is_embedded_is_counted(llama_path: Path) -> None:
    """Each input as a request; its tokens are none that a cache has missed."""
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(llama_path)
        result = model.embed(TEXTS)
        [stats] = engine.stats().models
    assert stats.num_requests == stats.num_finished == stats.queue_time.count == len(TEXTS)
    assert stats.num_embedded_tokens == result.num_tokens > 0
    assert stats.num_prompt_tokens == stats.num_running == stats.num_waiting == 0


def test_an_input_that_is_embedded_is_running(model: snapllm.Model, engine: snapllm.Engine) -> None:
    def stats() -> _core.ModelStats:
        return next(each for each in engine.stats().models if each.id == model.id)

    embedding = threading.Thread(target=model.embed, args=([[5] * 1000] * 16,))
    embedding.start()
    while embedding.is_alive() and stats().num_running == 0:
        pass
    assert embedding.is_alive()
    embedding.join()
    assert stats().num_running == 0


def test_a_request_that_is_cancelled_goes_on_for_a_few_tokens_only(llama_path: Path) -> None:
    """Two of the inputs; a single call with all of them would also have Ctrl-C wait for it."""

    async def leave(model: snapllm.Model, engine: snapllm.Engine) -> None:
        request = asyncio.create_task(model.aembed([[5] * 1000] * 16))
        while engine.stats().models[0].num_requests == 0:
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    with snapllm.Engine(num_threads=1) as engine:
        asyncio.run(leave(engine.load(llama_path), engine))
        [stats] = engine.stats().models
    assert 2 <= stats.num_requests <= 8


def test_asyncio_embeds_many_at_once(model: snapllm.Model) -> None:
    async def run() -> list[snapllm.Embeddings]:
        return await asyncio.gather(*(model.aembed(text) for text in TEXTS * 5))

    results = asyncio.run(run())
    for result, expected in zip(results, np.tile(embed(model, TEXTS), (5, 1)), strict=True):
        assert np.allclose(result.vectors[0], expected, atol=2e-3)
    assert math.isclose(sum(value**2 for value in results[0].vectors[0]), 1, abs_tol=1e-5)


def test_a_begun_request_is_finished_before_the_engine_ends(llama_path: Path) -> None:
    """It goes to the core a few inputs at a time."""
    engine = snapllm.Engine(num_threads=1)
    model = engine.load(llama_path)
    inputs = [[7 * i % 250 for i in range(100)]] * 200

    async def run() -> list[snapllm.Embeddings]:
        requests = [asyncio.create_task(model.aembed(inputs)) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert not any(request.done() for request in requests)
        await asyncio.to_thread(engine.close, 60)
        with pytest.raises(snapllm.EngineClosedError):
            await model.aembed("x")
        return await asyncio.gather(*requests)

    assert [len(result.vectors) for result in asyncio.run(run())] == [200] * 4


def test_a_begun_request_ends_with_the_time_to_close(llama_path: Path) -> None:
    engine = snapllm.Engine(num_threads=1)
    model = engine.load(llama_path)

    async def run() -> None:
        request = asyncio.create_task(model.aembed([[5] * 1000] * 2000))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(engine.close, 0.1)
        with pytest.raises(snapllm.EngineClosedError):
            await request

    asyncio.run(run())


@pytest.mark.parametrize("end", ["unload", "close"])
def test_the_end_of_a_model_ends_its_embeddings(tmp_path: Path, end: str) -> None:
    path = make_nano_model(tmp_path / "m.gguf", context_size=16384)
    engine = snapllm.Engine(num_threads=1)
    model = engine.load(path, "m")
    failures: list[Exception] = []

    def work() -> None:
        try:
            model.embed([[5] * 2000] * 16)  # one call of the core, seconds long
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not engine.stats().models[0].num_running:
        time.sleep(0.001)
    engine.unload("m") if end == "unload" else engine.close()
    thread.join()
    engine.close()
    assert [type(each) for each in failures] == [snapllm.EngineClosedError]


def test_a_model_that_only_embeds_takes_no_projector(tmp_path: Path) -> None:
    path = make_embedding_model(tmp_path / "bert.gguf")
    projector = make_nano_projector(tmp_path / "mmproj.gguf", "mlp")
    with snapllm.Engine(num_threads=1) as engine:
        with pytest.raises(snapllm.InvalidRequestError, match="only embeds"):
            engine.load(path, mmproj_path=projector)
        assert engine.models() == []
