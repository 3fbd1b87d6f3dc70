"""Processes that make training data beside the training."""

from __future__ import annotations

import multiprocessing as mp
import os
from collections.abc import Callable
from typing import Any

_CONTEXT = mp.get_context("spawn")


def default_count() -> int:
    """All cores but the two that train."""
    return max(1, (os.cpu_count() or 2) - 2)


def shared_number(value: float) -> Any:
    """A number that the processes see change."""
    return _CONTEXT.Value("d", value)


def start(
    produce: Callable[..., None], seed: int, *args: Any, count: int, queue_size: int
) -> tuple[Callable[[], Any], Callable[[], None]]:
    """Runs `produce(seed, *args, queue)` in `count` processes, each with a seed of its own.

    Returns what takes the next item from the queue, and what ends the processes.
    """
    queue = _CONTEXT.Queue(maxsize=queue_size)
    processes = [
        _CONTEXT.Process(target=produce, args=(seed + 1000 * i, *args, queue), daemon=True)
        for i in range(count)
    ]
    for process in processes:
        process.start()

    def stop() -> None:
        for process in processes:
            process.terminate()

    return queue.get, stop
