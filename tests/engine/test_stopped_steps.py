"""A prompt that is computed alone gives way to what comes meanwhile, and stays what it is."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nano_models import make_nano_model
from waiting import wait_until

import snapllm
from snapllm._core import ModelStats


def test_what_gives_way_is_computed_again_and_answered_as_alone(tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "m.gguf", context_size=4096)
    long = [(i * 31 + 7) % 200 + 3 for i in range(3000)]
    short = [(i * 17 + 5) % 200 + 3 for i in range(20)]
    with snapllm.Engine(num_threads=1) as engine, ThreadPoolExecutor(1) as threads:
        model = engine.load(path, "m")

        def ask(prompt: list[int]) -> tuple[list[int], list[float]]:
            answer = model.generate(
                prompt, temperature=0, max_tokens=8, num_logprobs=0, reuse_prefix=False
            )
            return answer.tokens, [each.logprob for each in answer.logprobs]

        def stats() -> ModelStats:
            return engine.stats().models[0]

        expected, expected_short = ask(long), ask(short)
        deadline = time.monotonic() + 60
        while stats().num_stopped_steps < 3:
            assert time.monotonic() < deadline, "no step gave way"
            answer = threads.submit(ask, long)
            while not answer.done():
                assert ask(short) == expected_short
            assert answer.result() == expected
        # The end of an answer goes out first.
        wait_until(lambda: (stats().num_running, stats().num_kv_cells_used) == (0, 0))
