"""Answers that together outgrow the KV memory: they take turns and stay what they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nano_models import make_nano_model
from ties import decided_tokens

import snapllm

LENGTH: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True}
NUM_REQUESTS = 6


@pytest.mark.parametrize("architecture", ["llama", "mamba2", "lfm2"])
def test_preempted_answers_are_those_of_requests_alone(tmp_path: Path, architecture: str) -> None:
    path = make_nano_model(tmp_path / "m.gguf", architecture)
    prompts = [[(i * 17 + k * (i + 3)) % 200 + 3 for k in range(50)] for i in range(NUM_REQUESTS)]
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path, "m", context_size=512, kv_cells=1024)

        def ask(prompt: list[int]) -> snapllm.Completion:
            return model.generate(prompt, temperature=0, num_logprobs=2, **LENGTH)

        with ThreadPoolExecutor(NUM_REQUESTS) as threads:
            answers = list(threads.map(ask, prompts))
        stats = next(stats for stats in engine.stats().models if stats.id == "m")
        assert stats.num_preemptions > 0
        assert (stats.num_running, stats.num_waiting, stats.num_failed) == (0, 0, 0)
        num_compared = 0
        for prompt, answer in zip(prompts, answers, strict=True):
            assert len(answer.tokens) == len(answer.logprobs) == 400
            assert answer.usage.num_prompt_tokens == 50
            # From several places on, since rounding decides somewhere between them.
            for start in range(0, 400, 40):
                text = prompt + answer.tokens[:start]
                alone = decided_tokens(
                    model, text, reuse_prefix=False, max_tokens=40, ignore_eos=True
                )
                assert answer.tokens[start : start + len(alone)] == alone
                num_compared += len(alone)
        assert num_compared > 300
