"""Guessing ahead: the same answers, in fewer steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import snapllm
from snapllm.engine import demo_model_path

NUMBERS = "1 2 3 4 5 6 7 8 9 10 " * 5
QUESTIONS = (NUMBERS, "What is machine learning?", "Write a haiku about coding")


def test_guesses_change_no_answer() -> None:
    with snapllm.Engine(num_threads=1) as engine:
        plain = engine.load(demo_model_path(), "plain", context_size=2048)
        guessing = engine.load(demo_model_path(), "guessing", context_size=2048, draft_tokens=8)
        assert (plain.info.draft_tokens, guessing.info.draft_tokens) == (0, 8)
        for question in QUESTIONS:
            answers = [
                model.chat(question, temperature=0, max_tokens=60, reuse_prefix=False)
                for model in (plain, guessing)
            ]
            assert answers[0].content == answers[1].content
            assert answers[0].usage == answers[1].usage
        stats = {each.id: each for each in engine.stats().models}
        assert stats["plain"].num_draft_tokens == 0
        assert stats["guessing"].num_accepted_draft_tokens > 20
        assert stats["guessing"].num_steps < stats["plain"].num_steps


def test_few_sequences_may_have_many_guesses(llama_path: Path) -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    with snapllm.Engine(num_threads=1) as engine, ThreadPoolExecutor(4) as threads:
        model = engine.load(llama_path, max_sequences=4, draft_tokens=15)

        def answer(_: int) -> str:
            return model.generate(
                alphabet * 3,
                grammar=f'root ::= ("{alphabet}")*',
                ignore_eos=True,
                temperature=0,
                max_tokens=400,
                reuse_prefix=False,
            ).text

        assert set(threads.map(answer, range(4))) == {(alphabet * 16)[:400]}
        assert engine.stats().models[0].num_accepted_draft_tokens > 1000


def test_a_model_that_cannot_take_tokens_back_guesses_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from nano_models import make_nano_model

    with snapllm.Engine(num_threads=1) as engine:
        path = make_nano_model(tmp_path / "m.gguf", "mamba2")
        model = engine.load(path, draft_tokens=8)
        assert model.info.draft_tokens == 0
        assert model.generate([5, 6, 7, 8] * 10, temperature=0, max_tokens=8).tokens
