"""Plain generation on models with random weights."""

from __future__ import annotations

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import gguf
import pytest
from nano_models import Architecture, make_nano_model
from ties import decided_tokens
from waiting import wait_until

import snapllm
from snapllm import ContextLengthExceededError, GenerationFailedError, InvalidRequestError

PROMPT = "the cat in the hat and"
LENGTH = {"max_tokens": 24, "ignore_eos": True}


def test_greedy_answers_repeat_and_depend_on_the_prompt(model: snapllm.Model) -> None:
    first = model.generate(PROMPT, temperature=0, max_tokens=24, ignore_eos=True)
    again = model.generate(PROMPT, temperature=0, max_tokens=24, ignore_eos=True)
    other = model.generate(PROMPT + "!", temperature=0, max_tokens=24, ignore_eos=True)
    assert first.tokens == again.tokens
    assert first.text == again.text
    assert first.tokens != other.tokens
    assert len(first.tokens) == first.usage.num_generated_tokens == 24
    assert first.usage.num_prompt_tokens == len(model.tokenize(PROMPT))
    assert first.finish_reason == "length"


def test_what_is_missing_between_two_texts_is_asked_for(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "fim.gguf", fills_in=True)
    prefix, suffix = "def add(a, b):<|im_end|>", "\n\nprint(add(1, 2))"
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 24, "ignore_eos": True}
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path)

        def plain(text: str) -> list[int]:
            return model.tokenize(text, parse_special=False)

        def control(text: str) -> list[int]:
            [token] = model.tokenize(text)
            return [token]

        prompt = control("<|fim_prefix|>") + plain(prefix)
        prompt += control("<|fim_suffix|>") + plain(suffix) + control("<|fim_middle|>")
        filled = model.generate(prefix, suffix=suffix, **options)
        assert filled.usage.num_prompt_tokens == len(prompt)
        assert filled.tokens == model.generate(prompt, **options).tokens
        for none in ("", None):
            assert model.generate(prefix, suffix=none, **options).tokens != filled.tokens
        with pytest.raises(InvalidRequestError) as caught:
            model.generate(prompt, suffix=suffix)
        assert caught.value.param == "suffix"
        with pytest.raises(ContextLengthExceededError):
            model.generate(prefix, suffix="word " * 3000)


def test_a_model_that_fills_nothing_in_says_so(model: snapllm.Model) -> None:
    with pytest.raises(InvalidRequestError, match="missing between two texts") as caught:
        model.generate("one", suffix="three")
    assert caught.value.param == "suffix"


def test_the_streamed_pieces_are_the_whole_answer(model: snapllm.Model) -> None:
    whole = model.generate(PROMPT, temperature=0, max_tokens=64, ignore_eos=True)
    pieces = list(
        model.generate(PROMPT, stream=True, temperature=0, max_tokens=64, ignore_eos=True)
    )
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.tokens] == whole.tokens
    assert [piece.finish_reason for piece in pieces][-1] == "length"
    assert all(piece.finish_reason is None for piece in pieces[:-1])


def test_token_ids_are_a_prompt_too(model: snapllm.Model) -> None:
    tokens = model.tokenize(PROMPT)
    assert model.detokenize(tokens) == PROMPT
    by_text = model.generate(PROMPT, temperature=0, max_tokens=8)
    assert model.generate(tokens, temperature=0, max_tokens=8).tokens == by_text.tokens


def test_a_seed_repeats_a_sampled_answer(model: snapllm.Model) -> None:
    one = model.generate(PROMPT, seed=5, temperature=1, max_tokens=32)
    two = model.generate(PROMPT, seed=5, temperature=1, max_tokens=32)
    assert one.tokens == two.tokens
    others = {tuple(model.generate(PROMPT, temperature=1, max_tokens=32).tokens) for _ in range(4)}
    assert len(others) > 1


def test_a_random_seed_is_reported_and_repeats_the_answer(model: snapllm.Model) -> None:
    first = model.generate(PROMPT, temperature=1, max_tokens=32)
    again = model.generate(PROMPT, temperature=1, max_tokens=32, seed=first.seed)
    assert again.tokens == first.tokens


def test_a_stop_string_ends_the_answer_and_is_left_out(model: snapllm.Model) -> None:
    whole = model.generate(PROMPT, temperature=0, max_tokens=64, ignore_eos=True).text
    stop = whole[20:24]
    stopped = model.generate(PROMPT, temperature=0, max_tokens=64, ignore_eos=True, stop=stop)
    assert stopped.text == whole[: whole.index(stop)]
    assert (stopped.finish_reason, stopped.stop_sequence) == ("stop", stop)


def test_log_probabilities_are_those_of_the_chosen_tokens(model: snapllm.Model) -> None:
    answer = model.generate(PROMPT, temperature=0, max_tokens=8, num_logprobs=5, ignore_eos=True)
    assert [entry.token for entry in answer.logprobs] == answer.tokens
    for entry in answer.logprobs:
        assert len(entry.top) == 5
        likelihoods = [option.logprob for option in entry.top]
        assert likelihoods == sorted(likelihoods, reverse=True)
        assert entry.token == entry.top[0].token
        assert math.isclose(entry.logprob, likelihoods[0], abs_tol=1e-5)
        assert sum(math.exp(value) for value in likelihoods) <= 1.0001


def test_a_prompt_is_as_likely_as_it_was_when_it_was_generated(model: snapllm.Model) -> None:
    options: dict[str, Any] = {"temperature": 0, "ignore_eos": True, "reuse_prefix": False}
    answer = model.generate(PROMPT, max_tokens=50, num_logprobs=3, **options)
    prompt = model.tokenize(PROMPT)
    [*chunks] = model.generate(
        prompt + answer.tokens, max_tokens=1, num_prompt_logprobs=3, stream=True, **options
    )
    entries = [entry for chunk in chunks for entry in chunk.prompt_logprobs]
    assert [entry.token for entry in entries] == prompt + answer.tokens
    assert math.isnan(entries[0].logprob) and not entries[0].top
    assert entries[len(prompt) :] == answer.logprobs
    whole = model.generate(prompt + answer.tokens, max_tokens=1, num_prompt_logprobs=3, **options)
    assert whole.prompt_logprobs[1:] == entries[1:]


def test_a_scored_prompt_is_computed_whole(model: snapllm.Model) -> None:
    prompt = PROMPT + " Computed whole."
    num_tokens = len(model.tokenize(prompt))
    for _ in range(2):
        scored = model.generate(prompt, max_tokens=1, num_prompt_logprobs=0)
        assert scored.usage.num_cached_tokens == 0
        assert len(scored.prompt_logprobs) == num_tokens
    assert not model.generate(prompt, max_tokens=1).prompt_logprobs


def test_a_bias_forbids_and_forces_tokens(model: snapllm.Model) -> None:
    chosen = model.generate(PROMPT, temperature=0, max_tokens=1).tokens[0]
    without = model.generate(PROMPT, temperature=0, max_tokens=1, logit_bias={chosen: -100})
    assert without.tokens != [chosen]
    forced = model.generate(PROMPT, temperature=0, max_tokens=3, logit_bias={70: 100})
    assert forced.tokens == [70, 70, 70]


def test_a_grammar_shapes_the_answer(model: snapllm.Model) -> None:
    answer = model.generate(PROMPT, grammar='root ::= "yes" | "no"', max_tokens=16)
    assert answer.text in ("yes", "no")
    assert answer.finish_reason == "stop"


def test_broken_utf8_never_reaches_the_text(model: snapllm.Model) -> None:
    """Random weights write random bytes: exactly what a text must survive."""
    [start], [end] = model.tokenize("<|im_start|>"), model.tokenize("<|endoftext|>")
    for seed in range(8):
        answer = model.generate(
            "x", temperature=2, top_k=0, top_p=1, min_p=0, seed=seed, num_logprobs=0
        )
        written = [entry.bytes for entry in answer.logprobs if entry.token not in (start, end)]
        assert answer.text.encode() == b"".join(written).decode(errors="replace").encode()


def test_a_prompt_longer_than_the_context_is_refused(model: snapllm.Model) -> None:
    """In the words by which agents know that they have to shorten their conversation."""
    size = model.info.context_size
    for prompt, num_tokens in (([70] * (size + 1), str(size + 1)), ("a" * 50_000_000, r"\d{6,}")):
        with pytest.raises(ContextLengthExceededError) as error:
            model.generate(prompt)
        form = f"prompt is too long: {num_tokens} tokens > {size - 1} maximum"
        assert re.match(form, str(error.value))
        assert f"This model's maximum context length is {size} tokens" in str(error.value)


def test_an_answer_ends_where_the_context_does(model: snapllm.Model) -> None:
    size = model.info.context_size
    answer = model.generate([70] * (size - 10), temperature=0, max_tokens=None, ignore_eos=True)
    assert answer.finish_reason == "length"
    assert len(answer.tokens) == 10


@pytest.mark.parametrize("tokens", [[], [-1], [10**6]])
def test_tokens_outside_of_the_vocabulary_are_refused(
    model: snapllm.Model, tokens: list[int]
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        model.generate(tokens)
    assert (refusal.value.param or "").startswith("prompt")
    if tokens:
        with pytest.raises(InvalidRequestError) as refusal:
            model.detokenize(tokens)
        assert (refusal.value.param or "").startswith("tokens")


def test_an_answer_that_is_not_to_end_ends_where_its_grammar_does(model: snapllm.Model) -> None:
    answer = model.generate(PROMPT, grammar='root ::= "yes"', ignore_eos=True, max_tokens=64)
    assert (answer.text, answer.finish_reason) == ("yes", "stop")
    # Stuck in the midst of it is no end.
    with pytest.raises(InvalidRequestError, match="no token is left to sample"):
        banned = {token: -math.inf for token in range(256) if model.detokenize([token])[:1] == "e"}
        model.generate(PROMPT, grammar='root ::= "e"', ignore_eos=True, logit_bias=banned)
    again = model.generate(PROMPT, grammar='root ::= "yes"+', ignore_eos=True, max_tokens=64)
    assert (again.text[:12], again.finish_reason) == ("yesyesyesyes", "length")
    assert model.generate(PROMPT, ignore_eos=True, max_tokens=64).finish_reason == "length"


def test_a_grammar_that_does_not_parse_is_refused(model: snapllm.Model) -> None:
    for grammar in ("root ::= (", "nonsense", 'start ::= "a"'):
        with pytest.raises(InvalidRequestError, match="grammar"):
            model.generate(PROMPT, grammar=grammar)
    assert model.generate(PROMPT, max_tokens=2, ignore_eos=True).tokens


def test_leaving_a_stream_early_frees_its_sequence(
    engine: snapllm.Engine, long_model: snapllm.Model
) -> None:
    def stats() -> Any:
        return next(each for each in engine.stats().models if each.id == long_model.id)

    num_cancelled = stats().num_cancelled
    stream = long_model.generate(PROMPT, stream=True, max_tokens=30_000, ignore_eos=True)
    next(stream)
    del stream

    def is_free() -> bool:
        now = stats()
        return now.num_running == 0 and now.num_kv_cells_used <= now.num_hot_tokens

    wait_until(is_free, "the abandoned request is still running")
    assert stats().num_cancelled == num_cancelled + 1


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_prefill_in_pieces_changes_nothing(tmp_path: Path, architecture: Architecture) -> None:
    """A prompt computed in one batch or in many, alone or beside others: the same tokens."""
    path = make_nano_model(tmp_path / "m.gguf", architecture, seed=3)
    prompts = [[5 + (i * step) % 60 for i in range(700)] for step in (1, 7, 11)]
    answers: list[list[list[int]]] = []
    decided: list[list[int]] = []
    for batch in (1024, 128):
        with snapllm.Engine(num_threads=1) as engine, ThreadPoolExecutor(len(prompts)) as threads:
            model = engine.load(path, batch_tokens=batch, ubatch_tokens=64)

            def answer(prompt: list[int], model: snapllm.Model = model) -> list[int]:
                return model.generate(prompt, temperature=0, **LENGTH).tokens

            if not decided:
                decided = [decided_tokens(model, prompt, **LENGTH) for prompt in prompts]
            answers.append([answer(prompt) for prompt in prompts])
            answers.append(list(threads.map(answer, prompts)))
    for each in answers:
        for tokens, known in zip(each, decided, strict=True):
            assert tokens[: len(known)] == known
    assert len({tuple(tokens) for tokens in answers[0]}) == len(prompts)
    assert sum(map(len, decided)) > LENGTH["max_tokens"]


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"temperature": 0.8}, {"repeat_penalty": 2}]
)
def test_where_every_token_is_banned_there_is_no_answer(
    model: snapllm.Model, options: dict[str, float]
) -> None:
    banned = dict.fromkeys(range(model.info.vocab_size), -math.inf)
    with pytest.raises(snapllm.SnapLLMError, match="no token"):
        model.generate("Hi", max_tokens=4, logit_bias=banned, **options)


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_model_that_computes_no_numbers_fails_and_blames_no_parameter(
    tmp_path: Path, temperature: float
) -> None:
    path = make_nano_model(tmp_path / "m.gguf")
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        if tensor.name == "output_norm.weight":
            tensor.data[:] = math.nan
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path)
        for _ in range(2):
            with pytest.raises(GenerationFailedError, match="not finite") as caught:
                model.generate(PROMPT, temperature=temperature, max_tokens=4)
            assert caught.value.param is None


@pytest.mark.parametrize("unit", ["abc ", "déjà vu, encore ", "the cat 12345 "])
def test_a_prompt_that_is_far_too_long_is_refused_with_about_as_many_tokens_as_it_has(
    tmp_path: Path, unit: str
) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(make_nano_model(tmp_path / "m.gguf"), "m", context_size=256)
        tokens_of_unit = len(model.tokenize(unit * 20)) / 20
        for ask in (model.generate, model.chat):
            with pytest.raises(ContextLengthExceededError) as error:
                ask(unit * 20000)
            counted = re.search(r"too long: (\d+) tokens > 255 maximum", str(error.value))
            assert counted is not None
            assert int(counted[1]) == pytest.approx(20000 * tokens_of_unit, rel=0.02)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("grammar", ["", 'root ::= "a"* '])
def test_an_answer_does_not_end_before_its_least_number_of_tokens(
    model: snapllm.Model, temperature: float, grammar: str
) -> None:
    end = dict.fromkeys(model.tokenize("<|im_end|>", parse_special=True), 100.0)
    options: dict[str, Any] = {"temperature": temperature, "seed": 1, "grammar": grammar}
    options |= {"max_tokens": 40, "logit_bias": end}
    assert len(model.generate("Hello", **options).tokens) < 10
    answer = model.generate("Hello", min_tokens=20, num_logprobs=1, **options)
    assert 20 <= len(answer.tokens) < 30
    assert answer.finish_reason == "stop"


def test_a_plain_prompt_is_completed_by_a_schema(model: snapllm.Model) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = model.generate("Go", json_schema=schema, max_tokens=200, temperature=0)
    assert isinstance(json.loads(answer.text)["n"], int)
    with pytest.raises(InvalidRequestError) as error:
        model.generate("Go", json_schema=schema, grammar='root ::= "a"')
    assert error.value.param == "grammar"
