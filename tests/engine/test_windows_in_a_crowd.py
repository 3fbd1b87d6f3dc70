"""Models with a sliding window whose prompts are computed beside others, in several pieces."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exact_answers import ANSWER_TOKENS, GREEDY, Answer, difference
from nano_models import make_nano_model

import snapllm

NUM_PROMPTS = 300


def test_no_prompt_loses_its_window_to_another_in_the_same_step(tmp_path: Path) -> None:
    """A step of several physical batches looks for the cells of all before it computes any."""
    path = make_nano_model(tmp_path / "m.gguf", "gemma3")
    rng = random.Random(1)
    prompts = [
        [rng.randrange(250) for _ in range(rng.randrange(100, 700))] for _ in range(NUM_PROMPTS)
    ]
    with snapllm.Engine(num_threads=1) as engine, ThreadPoolExecutor(24) as threads:
        model = engine.load(
            path, context_size=2048, kv_cells=2048, batch_tokens=256, ubatch_tokens=64
        )

        def ask(prompt: list[int]) -> Answer:
            result = model.generate(prompt, max_tokens=ANSWER_TOKENS, reuse_prefix=False, **GREEDY)
            return Answer.of(result.logprobs)

        answers = list(threads.map(ask, prompts))
        differences = [
            difference(got, ask(prompt)) for got, prompt in zip(answers, prompts, strict=True)
        ]
    assert max(differences) < 0.01
