"""Recurrent models of which llama.cpp cannot compute several sequences in a batch."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from exact_answers import GREEDY, Answer
from nano_recurrent_models import RecurrentArchitecture, make_recurrent_model

import snapllm

NUM_PROMPTS = 12


@pytest.mark.parametrize("architecture", get_args(RecurrentArchitecture))
def test_prompts_that_come_together_are_answered_as_each_alone(
    architecture: RecurrentArchitecture, tmp_path: Path
) -> None:
    path = make_recurrent_model(tmp_path / "m.gguf", architecture)
    rng = random.Random(1)
    prompts = [
        [rng.randrange(250) for _ in range(rng.randrange(20, 90))] for _ in range(NUM_PROMPTS)
    ]
    with snapllm.Engine(num_threads=1) as engine, ThreadPoolExecutor(NUM_PROMPTS) as threads:
        model = engine.load(path)

        def ask(prompt: list[int]) -> Answer:
            result = model.generate(prompt, max_tokens=8, reuse_prefix=False, **GREEDY)
            return Answer.of(result.logprobs)

        together = list(threads.map(ask, prompts))
        assert together == [ask(prompt) for prompt in prompts]
        vectors = model.embed(prompts).vectors
        assert np.array_equal(vectors, [model.embed(prompt).vectors[0] for prompt in prompts])
