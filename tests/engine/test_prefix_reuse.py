"""What is reused of earlier prompts never changes an answer, on any kind of model."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import pytest
from nano_models import GEMMA3_WINDOW, Architecture, Quant, make_nano_model, make_quantized_model

import snapllm
from snapllm import _core
from snapllm.outputs import CacheUse, TokenLogprob, Usage

ARCHITECTURES = get_args(Architecture)
GREEDY = {"temperature": 0.0, "ignore_eos": True}
# Around blocks of 256, the window of gemma3, physical batches of 512.
LENGTHS = (17, GEMMA3_WINDOW, GEMMA3_WINDOW + 1, 255, 256, 257, 511, 512, 513, 700, 1025)


def random_tokens(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(250) for _ in range(count)]


Logprobs = dict[int, float]


def ask(model: snapllm.Model, prompt: list[int]) -> tuple[Logprobs, int, Usage, CacheUse]:
    """The likeliest next tokens, the likeliest of all, and what was reused."""
    [*_, last] = model.generate(prompt, stream=True, max_tokens=1, num_logprobs=20, **GREEDY)
    assert last.finish is not None
    usage, use = last.finish.usage, last.finish.cache
    assert use.num_hot_tokens + use.num_warm_tokens + use.num_cold_tokens == usage.num_cached_tokens
    return _top(last.logprobs[0]), last.tokens[0], usage, use


def plain(model: snapllm.Model, prompt: list[int]) -> Logprobs:
    """The same computed from the beginning."""
    result = model.generate(prompt, max_tokens=1, num_logprobs=20, reuse_prefix=False, **GREEDY)
    assert result.usage.num_cached_tokens == 0
    return _top(result.logprobs[0])


def _top(entry: TokenLogprob) -> Logprobs:
    return {alternative.token: alternative.logprob for alternative in entry.top}


def to_warm(engine: snapllm.Engine, model: snapllm.Model, tokens: list[int]) -> None:
    """Takes everything that begins with the tokens out of the KV memory."""
    _move(engine, model, tokens, "warm")


def to_hot(engine: snapllm.Engine, model: snapllm.Model, tokens: list[int]) -> None:
    """Has the tokens stay in the KV memory."""
    _move(engine, model, tokens, "hot")


def _move(engine: snapllm.Engine, model: snapllm.Model, tokens: list[int], tier: str) -> None:
    info = model.info
    if info.kv_kind == "checkpoints":
        return  # nothing of it stays there by itself
    ref = _core.PrefixRef(
        model_id=info.id, fingerprint=info.fingerprint, kv_kind=info.kv_kind, tokens=tokens
    )
    engine.runner.core.move_prefix(ref, tier, [])


def open_engine(path: Path, workspace: Path | None = None) -> tuple[snapllm.Engine, snapllm.Model]:
    engine = snapllm.Engine(num_threads=1, workspace=workspace)
    return engine, engine.load(path, "m", context_size=2048)


@pytest.fixture(params=ARCHITECTURES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_nano_model(tmp_path / "m.gguf", request.param)


def turns(model: snapllm.Model, length: int) -> Iterator[tuple[list[int], Logprobs]]:
    """A conversation of three turns: each prompt, and what it answers on its own."""
    prompt = random_tokens(length, length)
    for turn in range(3):
        yield prompt, plain(model, prompt)
        prompt = prompt + random_tokens(1000 * turn + length, 23)


def test_each_turn_computes_only_what_is_new(path: Path) -> None:
    engine, model = open_engine(path)
    with engine:
        for length in LENGTHS:
            known = 0
            for prompt, expected in turns(model, length):
                got, _, usage, _ = ask(model, prompt)
                assert got == expected
                assert usage.num_cached_tokens >= known
                known = len(prompt)


def test_the_same_prompt_again_computes_one_token(path: Path) -> None:
    engine, model = open_engine(path)
    with engine:
        prompt = random_tokens(3, 300)
        expected = plain(model, prompt)
        ask(model, prompt)
        for _ in range(2):
            got, _, usage, _ = ask(model, prompt)
            assert got == expected
            assert usage.num_cached_tokens == len(prompt) - 1


def test_the_generated_tokens_are_kept_too(path: Path) -> None:
    engine, model = open_engine(path)
    with engine:
        prompt = random_tokens(1, 300)
        first = model.generate(prompt, max_tokens=50, **GREEDY)
        longer = prompt + first.tokens + random_tokens(2, 20)
        expected = plain(model, longer)
        got, _, usage, _ = ask(model, longer)
        # All but the token that was generated last.
        assert usage.num_cached_tokens == 300 + 49
        assert got == expected


def test_warm_and_cold_prefixes_answer_as_computed_ones(path: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    conversations: list[list[tuple[list[int], Logprobs]]] = []
    engine, model = open_engine(path, workspace)
    with engine:
        for length in LENGTHS:
            conversations.append(list(turns(model, length)))
            first, second = conversations[-1][:2]
            ask(model, first[0])
            to_warm(engine, model, first[0][:16])
            got, _, usage, use = ask(model, second[0])
            assert got == second[1]
            assert use.num_warm_tokens == usage.num_cached_tokens >= len(first[0])
    engine, model = open_engine(path, workspace)
    with engine:
        for (second_prompt, _), (prompt, expected) in [c[1:] for c in conversations]:
            got, _, usage, use = ask(model, prompt)
            assert got == expected
            assert use.num_cold_tokens == usage.num_cached_tokens >= len(second_prompt)
        stats = engine.stats()
        assert stats.models[0].num_failed_restores == 0
        assert stats.kv_store.num_damaged == 0


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_in_the_same_cells_a_restored_prompt_is_bitwise_the_computed_one(
    tmp_path: Path, architecture: Architecture
) -> None:
    path = make_nano_model(tmp_path / "m.gguf", architecture)
    for length in LENGTHS:
        prompt = random_tokens(length, length)
        longer = prompt + random_tokens(length + 1, 40)
        engine, model = open_engine(path)
        with engine:
            expected = plain(model, longer)
        engine, model = open_engine(path, tmp_path / str(length))
        with engine:
            ask(model, prompt)
        engine, model = open_engine(path, tmp_path / str(length))
        with engine:
            got, _, _, use = ask(model, longer)
            assert use.num_cold_tokens >= length - 7
            assert got == expected


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_branch_reuses_what_is_common(tmp_path: Path, architecture: Architecture) -> None:
    engine, model = open_engine(make_nano_model(tmp_path / "m.gguf", architecture))
    with engine:
        common = random_tokens(1, 700)
        for common_length in (40, 255, 256, 257, 300, 512, 650):
            branch = common[:common_length] + random_tokens(common_length, 90)
            expected = plain(model, branch)
            ask(model, common)
            got, _, usage, _ = ask(model, branch)
            assert got == expected
            assert usage.num_cached_tokens >= common_length
            to_warm(engine, model, common[:16])
            got, _, _, use = ask(model, branch)
            assert got == expected
            assert use.num_warm_tokens == len(branch) - 1


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mamba2", "lfm2"])
def test_where_a_prompt_left_what_was_cached_is_said_for_every_kind_of_model(
    tmp_path: Path, architecture: Architecture
) -> None:
    engine, model = open_engine(make_nano_model(tmp_path / "m.gguf", architecture))
    with engine:
        first = random_tokens(1, 300)
        ask(model, first)
        edited = [*first[:180], (first[180] + 1) % 250, *first[181:]]
        _, _, _, use = ask(model, edited)
        assert (use.differs_at, use.cached_token) == (180, first[180])


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "deepseek2"])
def test_what_is_hot_of_a_stored_prompt_is_forked_and_the_rest_restored(
    tmp_path: Path, architecture: Architecture
) -> None:
    engine, model = open_engine(make_nano_model(tmp_path / "m.gguf", architecture))
    with engine:
        for length in (256, 257, 511, 600, 1000):
            system = random_tokens(length, length)
            one, other = (system + random_tokens(seed, 300) for seed in (1, 2))
            longer = [*other, 7, 8]
            expected = plain(model, longer)
            for prompt in (one, other):
                ask(model, prompt)
            to_warm(engine, model, other)
            got, _, _, use = ask(model, longer)
            assert got == expected
            assert use.num_hot_tokens == length // 256 * 256
            assert use.num_warm_tokens == len(other) - use.num_hot_tokens
            assert ask(model, [*one, 9])[2].num_cached_tokens == len(one)


@pytest.mark.parametrize("length", [100, 300, 700])
def test_a_document_that_becomes_hot_after_its_questions_changes_no_bit(
    path: Path, length: int
) -> None:
    """Part of them is in its cells then, and part in their own."""
    engine, model = open_engine(path)
    with engine:
        document = random_tokens(length, length)
        prompts = [document + random_tokens(seed, 9) + [seed] for seed in (1, 1, 2, 3)]
        expected = [plain(model, prompt) for prompt in prompts]
        ask(model, document)
        for prompt, wanted in zip(prompts, expected, strict=True):
            assert ask(model, prompt)[0] == wanted
        to_warm(engine, model, document)
        assert ask(model, prompts[0])[0] == expected[0]
        to_hot(engine, model, document)
        for _ in range(2):
            for prompt, wanted in zip(prompts, expected, strict=True):
                assert ask(model, prompt)[0] == wanted


@pytest.mark.parametrize("length", [17, 256, 257, 700, 1025])
def test_what_is_restored_goes_on_with_the_very_bits_of_what_was_computed(
    path: Path, length: int
) -> None:
    """Wherever the cells lie."""
    engine, model = open_engine(path)
    with engine:
        prompt = random_tokens(length, length)
        expected = plain(model, prompt)
        ask(model, prompt)
        assert ask(model, prompt)[0] == expected
        to_warm(engine, model, prompt[:16])
        assert ask(model, prompt)[0] == expected


@pytest.mark.skipif("avx2" not in Path("/proc/cpuinfo").read_text(), reason="it needs AVX2")
@pytest.mark.parametrize(
    ("architecture", "kind", "output_kind"),
    [
        *product(["llama", "qwen3moe"], get_args(Quant), [None]),
        ("llama", "q4_k", "iq4_nl"),
        ("llama", "iq4_nl", "q4_k"),
        ("qwen3moe", "q4_0", "q4_k"),
        ("deepseek2", "q4_k", None),
        ("deepseek2", "q4_0", None),
    ],
)
def test_every_kind_of_weights_has_the_same_bits_alone_in_batches_and_restored(
    tmp_path: Path,
    architecture: Literal["llama", "qwen3moe", "deepseek2"],
    kind: Quant,
    output_kind: Quant | None,
) -> None:
    """A few rows are computed by one kernel, a batch of rows by another.

    Beside a kind that llama.cpp reorders, another lies as it is. Of a mixture's experts each has
    some rows of a batch; with latent attention each head has a matrix of its own.
    """
    path = make_quantized_model(tmp_path / "m.gguf", kind, output_kind, architecture)
    engine, model = open_engine(path)
    with engine, ThreadPoolExecutor(6) as threads:
        for length in (17, 257, 700):
            prompt = random_tokens(length, length)
            expected = plain(model, prompt)
            for count in (1, 3, 7, 8, 9):  # computed after so many were restored
                start = prompt[:-count]
                ask(model, start)
                assert ask(model, prompt)[0] == expected
                to_warm(engine, model, prompt[:16])
                assert ask(model, prompt)[0] == expected
                to_warm(engine, model, prompt[:16])
        for seed, length in product(range(3), range(2, 60)):  # each computed after the one before
            start = random_tokens(seed, length)
            assert ask(model, start)[0] == plain(model, start)
        prompts = [random_tokens(i, 20 + 9 * i) for i in range(6)]
        alone = [ask(model, prompt)[0] for prompt in prompts]
        for prompt in prompts:
            to_warm(engine, model, prompt[:16])
        assert [got for got, *_ in threads.map(lambda p: ask(model, p), prompts)] == alone


def test_many_forks_at_once_answer_as_each_alone(path: Path) -> None:
    engine, model = open_engine(path)
    with engine, ThreadPoolExecutor(16) as threads:
        common = random_tokens(5, 600)
        prompts = [common + random_tokens(100 + i, 5 + i) for i in range(16)]
        expected = [plain(model, prompt) for prompt in prompts]
        results = list(threads.map(lambda prompt: ask(model, prompt), prompts))
        for (got, _, _, _), alone in zip(results, expected, strict=True):
            assert got == alone
        if model.info.kv_kind == "blocks":
            usages = [usage for _, _, usage, _ in results]
            num_computed = sum(u.num_prompt_tokens - u.num_cached_tokens for u in usages)
            assert num_computed < 2 * len(common)


def test_conversations_never_mix_while_everything_is_evicted(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf", "llama")
    with snapllm.Engine(
        num_threads=1, workspace=tmp_path / "w", kv_ram_bytes=1 << 20, kv_disk_bytes=1 << 20
    ) as engine:
        model = engine.load(path, context_size=1024, kv_cells=2048)
        rng = random.Random(3)
        heads = [random_tokens(i, n) for i, n in enumerate((20, 256, 300, 512))]
        prompts = [
            rng.choice(heads) + random_tokens(50 + i, rng.randrange(1, 300)) for i in range(60)
        ]
        expected = [plain(model, prompt) for prompt in prompts]
        with ThreadPoolExecutor(12) as threads:
            for _ in range(2):
                order = rng.sample(range(len(prompts)), len(prompts))
                got = threads.map(lambda i: (i, ask(model, prompts[i])[0]), order)
                for i, logprobs in got:
                    assert logprobs == expected[i]
        deadline = time.monotonic() + 20
        while True:  # what is not written yet stays in RAM
            stats = engine.stats()
            store = stats.kv_store
            if store.num_disk_evictions > 0 and store.ram_bytes <= store.max_ram_bytes:
                break
            assert time.monotonic() < deadline, "the store keeps more than it may"
            time.sleep(0.01)
        assert store.num_ram_evictions > 0
        assert stats.models[0].num_cached_tokens > 0


def test_another_model_or_cache_type_or_namespace_is_a_miss(tmp_path: Path) -> None:
    workspace, prompt = tmp_path / "w", random_tokens(9, 400)
    engine, model = open_engine(make_nano_model(tmp_path / "m.gguf", "llama"), workspace)
    with engine:
        assert ask(model, prompt)[2].num_cached_tokens == 0
        assert ask(model, prompt)[2].num_cached_tokens == 399
        other = _core.GenerateRequest(
            model_id="m", prompt=prompt, cache_namespace="other", max_tokens=1
        )
        outputs = _core.OutputQueue()
        engine.runner.core.submit(other, outputs)
        outputs.wait()
        assert outputs.drain()[-1].num_cached_tokens == 0
    engine, model = open_engine(make_nano_model(tmp_path / "m.gguf", "llama", seed=2), workspace)
    with engine:
        assert ask(model, prompt)[2].num_cached_tokens == 0
        other_type = engine.load(tmp_path / "m.gguf", "f32", context_size=2048, kv_type="f32")
        assert ask(other_type, prompt)[2].num_cached_tokens == 0


def test_a_chat_reuses_the_turns_before(demo: snapllm.Model) -> None:
    messages = [{"role": "user", "content": "Hello! Who are you?"}]
    first = demo.chat(messages, temperature=0, max_tokens=60)
    messages += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "Count to 5"},
    ]
    second = demo.chat(messages, temperature=0, max_tokens=30)
    assert second.usage.num_cached_tokens >= first.usage.num_prompt_tokens
    alone = demo.chat(messages, temperature=0, max_tokens=30, reuse_prefix=False)
    assert alone.usage.num_cached_tokens == 0
    assert second.content == alone.content


@pytest.mark.parametrize("budget", [8, 1000])
def test_the_turn_after_a_reasoning_reuses_it_also_where_its_budget_ended_it(
    demo: snapllm.Model, budget: int
) -> None:
    question = {"role": "user", "content": "Tom has 3 apples and buys 4 more. How many apples?"}
    first = demo.chat([question], thinking=budget, max_tokens=300, temperature=0)
    assert (first.usage.num_reasoning_tokens == budget) == (budget == 8)
    answer = {
        "role": "assistant",
        "content": first.content,
        "reasoning_content": first.reasoning,
    }
    more = {"role": "user", "content": "Thanks."}
    second = demo.chat([question, answer, more], thinking=budget, max_tokens=1)
    usage = first.usage
    assert (
        second.usage.num_cached_tokens >= usage.num_prompt_tokens + usage.num_generated_tokens - 1
    )


def test_a_workspace_in_use_is_refused_and_its_user_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    (tmp_path / "link").symlink_to(folder)
    open_it = "import sys, snapllm; snapllm.Engine(workspace=sys.argv[1])"
    with snapllm.Engine(workspace=folder):
        for path in folder, tmp_path / "link":
            with pytest.raises(snapllm.InvalidRequestError, match="another engine of this process"):
                snapllm.Engine(workspace=path)
        command = [sys.executable, "-c", open_it, str(folder)]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "in use by another process" in other.stderr
    snapllm.Engine(workspace=folder).close()


def test_kv_of_short_contexts_is_none_of_long_ones(tmp_path: Path) -> None:
    """The factors by which llama.cpp rotates positions follow from the context's size."""
    path = make_nano_model(tmp_path / "long.gguf", long_rope_from=512)
    prompt = random_tokens(1, 300)

    def answer(workspace: Path | None, context_size: int) -> tuple[Logprobs, int, int]:
        with snapllm.Engine(num_threads=1, workspace=workspace) as engine:
            size = {"context_size": context_size, "kv_cells": context_size}
            logprobs, token, usage, _ = ask(engine.load(path, **size), prompt)
            return logprobs, token, usage.num_cached_tokens

    fresh = {size: answer(None, size) for size in (512, 1024)}
    assert fresh[512][0] != fresh[1024][0]
    for size in (512, 1024):
        assert answer(tmp_path / "ws", size) == fresh[size]
        assert answer(tmp_path / "ws", size)[2] == 299
