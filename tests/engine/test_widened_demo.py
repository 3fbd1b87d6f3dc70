"""The demo model in a larger shape answers as the demo model does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from nano_models import SHAPES
from widened_demo import make_widened_demo

import snapllm
from snapllm.engine import demo_model_path

SHAPE = replace(SHAPES["1b"], width=512, heads=8, kv_heads=4, ffn=1024, layers=8)
DOCUMENT = "The vacation policy is 20 days of paid vacation. The office opens at 8:30.\n\n"


def test_what_is_added_is_not_heard(tmp_path: Path) -> None:
    path = make_widened_demo(
        tmp_path / "wide.gguf", demo_model_path(), "f16", shape=SHAPE, vocab_size=5000
    )
    with snapllm.Engine() as engine:
        wide, demo = engine.load(path), engine.load_demo("demo")
        for question in ("Write a haiku about coding", DOCUMENT + "When does the office open?"):
            wide_answer, answer = (
                model.chat(question, temperature=0, max_tokens=40, num_logprobs=1)
                for model in (wide, demo)
            )
            assert wide_answer.content == answer.content
            assert [entry.logprob for entry in wide_answer.logprobs] == pytest.approx(
                [entry.logprob for entry in answer.logprobs], abs=0.05
            )


def test_heads_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="heads"):
        make_widened_demo(
            tmp_path / "x.gguf", demo_model_path(), shape=replace(SHAPE, head_size=128)
        )
