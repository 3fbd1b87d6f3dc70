"""Models under a memory budget: who stays, who goes, who comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nano_models import make_embedding_model, make_nano_model
from waiting import wait_until

import snapllm
from snapllm import InvalidRequestError, ModelNotFoundError, OutOfMemoryError

IDS = ("a", "b", "c")
# Small enough to load in milliseconds, and large enough to count beside the margin that a
# load wants free for its buffers.
OPTIONS = {"context_size": 32768, "kv_cells": 65536}
GREEDY = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("budget")
    return {
        id_: make_nano_model(folder / f"{id_}.gguf", seed=i, context_size=32768)
        for i, id_ in enumerate(IDS)
    }


@pytest.fixture(scope="module")
def sizes(paths: dict[str, Path]) -> tuple[int, int]:
    """Bytes that one of the models takes, and that a load of it wants free."""
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(paths["a"], "a", **OPTIONS)
        taken = engine.stats().memory.models_bytes
    low, high = 0, 4 << 30
    while high - low > 1 << 20:
        middle = (low + high) // 2
        with snapllm.Engine(num_threads=1, memory_budget_bytes=middle) as engine:
            try:
                engine.load(paths["a"], "a", **OPTIONS)
                high = middle
            except OutOfMemoryError:
                low = middle
    return taken, high


@pytest.fixture
def tight(sizes: tuple[int, int], paths: dict[str, Path]) -> Iterator[snapllm.Engine]:
    """An engine whose budget holds two of the models."""
    taken, wanted = sizes
    budget = wanted + taken + taken // 2
    with snapllm.Engine(num_threads=1, memory_budget_bytes=budget) as engine:
        yield engine


def load(engine: snapllm.Engine, paths: dict[str, Path], *ids: str) -> None:
    for model_id in ids:
        engine.load(paths[model_id], model_id, **OPTIONS)


def states(engine: snapllm.Engine) -> dict[str, str]:
    return {model.id: model.info.state for model in engine.models()}


def until_idle(engine: snapllm.Engine) -> None:
    deadline = time.monotonic() + 30
    while any(stats.num_running or stats.num_waiting for stats in engine.stats().models):
        assert time.monotonic() < deadline, "an abandoned request is still running"
        time.sleep(0.002)


def test_what_is_charged_is_what_was_allocated(paths: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        info = engine.load(paths["a"], "a", **OPTIONS).info
        memory = engine.stats().memory
        assert info.kv_bytes >= 65536 * 2 * 2 * 2 * 16 * 2  # cells, layers, heads, K and V, f16
        assert memory.models_bytes == info.weights_bytes + info.kv_bytes + info.compute_bytes
        engine.unload("a")
        assert engine.stats().memory.models_bytes == 0


def test_what_embeds_is_charged_too(paths: dict[str, Path], tmp_path: Path) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(paths["a"], "a", **OPTIONS)
        before = engine.stats().memory.models_bytes
        model.embed("x")
        after = engine.stats().memory.models_bytes
        # KV of 2,048 tokens, and rows of logits and vectors.
        assert after - before > 2048 * 2 * 2 * 2 * 16 * 2
        model.embed("y")
        assert engine.stats().memory.models_bytes == after
        engine.unload("a")
        assert engine.stats().memory.models_bytes == 0
        bert = engine.load(make_embedding_model(tmp_path / "bert.gguf")).info
        assert engine.stats().memory.models_bytes > bert.weights_bytes


def test_a_model_embeds_only_where_there_is_memory_for_it(paths: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1, memory_budget_bytes=256 << 20) as engine:
        model = engine.load(paths["a"], "a", **OPTIONS)
        memory = engine.stats().memory
        engine.set_external_memory("image", memory.budget_bytes - memory.models_bytes)
        with pytest.raises(OutOfMemoryError, match="embedding context of model a"):
            model.embed("x")
        assert model.generate("hello", **GREEDY).tokens
        engine.set_external_memory("image", 0)
        assert model.embed("x").vectors


def test_round_robin_over_more_models_than_fit_works(
    tight: snapllm.Engine, paths: dict[str, Path]
) -> None:
    with snapllm.Engine(num_threads=1) as roomy:
        load(roomy, paths, *IDS)
        alone = {i: roomy.model(i).generate("hello", **GREEDY).tokens for i in IDS}
    assert len({tuple(tokens) for tokens in alone.values()}) == len(IDS)
    load(tight, paths, *IDS)
    for _ in range(3):
        for model_id in IDS:
            assert tight.model(model_id).generate("hello", **GREEDY).tokens == alone[model_id]
    stats = tight.stats()
    assert stats.memory.num_reloads >= 3
    assert stats.memory.num_evictions == stats.memory.num_reloads + 1
    assert stats.memory.used_bytes <= stats.memory.budget_bytes
    assert sum(s.num_evictions for s in stats.models) == stats.memory.num_evictions
    assert sorted(states(tight).values()) == ["evicted", "resident", "resident"]
    # The counters of an evicted model are kept.
    assert [s.num_requests for s in stats.models] == [3, 3, 3]
    assert [s.time_to_first_token.count for s in stats.models] == [3, 3, 3]
    assert [s.inter_token_latency.count for s in stats.models] == [33, 33, 33]


def test_a_load_that_cannot_fit_is_refused_and_says_who_holds_the_memory(
    tight: snapllm.Engine, paths: dict[str, Path]
) -> None:
    load(tight, paths, "a", "b")
    tight.pin("a")
    # Far longer than a load takes: "b" must be in use until the load was refused.
    stream = tight.model("b").generate("x", stream=True, max_tokens=30000, ignore_eos=True)
    next(stream)
    with pytest.raises(OutOfMemoryError, match=r"a \S+ \SiB \(pinned\), b \S+ \SiB \(in use\)"):
        load(tight, paths, "c")
    assert states(tight) == {"a": "resident", "b": "resident"}
    assert sum(len(next(stream).tokens) for _ in range(300)) >= 300  # it was not harmed
    del stream
    until_idle(tight)
    load(tight, paths, "c")
    assert states(tight)["b"] == "evicted"


def test_a_request_for_an_evicted_model_waits_for_a_busy_one(
    tight: snapllm.Engine, paths: dict[str, Path]
) -> None:
    load(tight, paths, *IDS)
    (evicted,) = (i for i, state in states(tight).items() if state == "evicted")
    busy = [i for i in IDS if i != evicted]
    streams = [
        tight.model(i).generate("x", stream=True, max_tokens=400, ignore_eos=True) for i in busy
    ]
    for stream in streams:
        next(stream)
    assert tight.model(evicted).generate("y", **GREEDY).tokens
    for stream in streams:
        assert list(stream)[-1].finish is not None


def test_two_ids_of_one_file_share_its_weights(paths: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        load(engine, paths, "a")
        one = engine.stats().memory.models_bytes
        second = engine.load(paths["a"], "again", **OPTIONS)
        info = second.info
        assert engine.stats().memory.models_bytes == one + info.kv_bytes + info.compute_bytes
        first = engine.model("a").generate("hello", **GREEDY).tokens
        assert second.generate("hello", **GREEDY).tokens == first
        engine.unload("a")
        assert second.generate("hello", **GREEDY).tokens == first


def test_an_idle_model_expires_and_comes_back(paths: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1, keep_alive_s=0.2) as engine:
        model = engine.load(paths["a"], "a", **OPTIONS)
        engine.load(paths["b"], "b", keep_alive_s=0, **OPTIONS)
        before = model.generate("hello", **GREEDY).tokens
        wait_until(lambda: model.info.state == "evicted")
        num_reloads = engine.stats().memory.num_reloads  # it may have expired earlier, too
        assert engine.active_model == "a"
        assert states(engine)["b"] == "resident"
        assert model.generate("hello", **GREEDY).tokens == before
        assert engine.stats().memory.num_reloads == num_reloads + 1


def test_external_memory_is_charged(tight: snapllm.Engine, paths: dict[str, Path]) -> None:
    load(tight, paths, "a", "b")
    tight.pin("b")
    room = tight.stats().memory.budget_bytes - tight.stats().memory.used_bytes
    tight.set_external_memory("image", room + 1)
    assert states(tight)["a"] == "evicted"
    with pytest.raises(OutOfMemoryError, match="image"):
        tight.set_external_memory("image", tight.stats().memory.budget_bytes)
    assert tight.stats().memory.external_bytes == room + 1
    tight.set_external_memory("image", 0)
    assert tight.model("a").generate("x", **GREEDY).tokens


def test_the_context_is_fitted_to_the_memory(sizes: tuple[int, int], tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "long.gguf", context_size=1 << 20)
    with snapllm.Engine(num_threads=1, memory_budget_bytes=512 << 20) as engine:
        info = engine.load(path).info
        assert 4096 <= info.context_size < 1 << 20
        assert info.kv_cells >= info.context_size
        assert info.train_context_size == 1 << 20
        assert engine.stats().memory.models_bytes < 512 << 20


def test_an_id_is_not_reloaded_with_other_options(paths: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(paths["a"], "a", context_size=512)
        assert engine.load(paths["a"], "a").info.context_size == 512
        with pytest.raises(InvalidRequestError, match="other options"):
            engine.load(paths["a"], "a", context_size=1024)


def test_pins_of_unknown_models_are_refused(tight: snapllm.Engine) -> None:
    with pytest.raises(ModelNotFoundError):
        tight.pin("nobody")
    with pytest.raises(InvalidRequestError):
        tight.set_external_memory("x", -1)


def test_thread_counts_are_remembered(paths: dict[str, Path], tmp_path: Path) -> None:
    def load_once(**options: int) -> int:
        with snapllm.Engine(num_threads=2, workspace=tmp_path) as engine:
            return engine.load(paths["a"], "a", **OPTIONS, **options).info.num_threads  # type: ignore[arg-type]

    measured = load_once()
    assert measured in (1, 2)
    file = tmp_path / "calibration.txt"
    text = file.read_text()
    assert text.endswith(f" {measured}\n")
    file.write_text(text[: -len(f" {measured}\n")] + f" {3 - measured}\n")
    assert load_once() == 3 - measured  # not measured again
    assert load_once(num_threads=measured) == measured


def test_a_load_can_be_unloaded_at_any_moment(paths: dict[str, Path]) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        for pause in (0.0, 0.001, 0.003, 0.01, 0.02):
            loader = threading.Thread(target=_try_load, args=(engine, paths["a"]))
            loader.start()
            time.sleep(pause)
            try:
                engine.unload("a")
            except ModelNotFoundError:
                loader.join()
                engine.unload("a") if engine.models() else None
            loader.join()
            assert engine.models() == []
        load(engine, paths, "a")


def _try_load(engine: snapllm.Engine, path: Path) -> None:
    try:
        engine.load(path, "a", **OPTIONS)
    except snapllm.SnapLLMError as error:
        assert error.code == "closed"
