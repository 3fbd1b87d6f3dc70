"""An image worker that is killed at random moments costs a request each, and no more.

Environment: SNAPLLM_IMAGE_KILL_ROUNDS is how often it is killed (default 5).
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np

import snapllm

ROUNDS = int(os.environ.get("SNAPLLM_IMAGE_KILL_ROUNDS", "5"))


def test_every_kill_is_survived(image_files: dict[str, Path]) -> None:
    rng = random.Random(1)
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load_diffusion(
            image_files["diffusion_model"], llm=image_files["llm"], taesd=image_files["taesd"]
        )

        def picture() -> np.ndarray:
            image = model.generate_image("a cat", width=64, height=64, num_steps=3, seed=1)
            return np.asarray(image)

        expected = picture()
        num_failed = 0
        for _ in range(ROUNDS):
            job = model.submit(model.request("x", width=128, height=128, num_steps=100))
            time.sleep(rng.random() * 0.4)
            pid = model.worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            try:
                job.result(60)
            except snapllm.GenerationFailedError as error:
                num_failed += 1
                assert "SIGKILL" in str(error)
            assert np.array_equal(picture(), expected)
        assert num_failed == ROUNDS
        assert model.info.num_starts == ROUNDS + 1
