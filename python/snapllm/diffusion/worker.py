"""The worker process of one image model, which `snapllm._child` starts.

It speaks `snapllm.diffusion.messages` over its standard input and output and ends when
its input does. Upstream may crash or hang on a model file that nobody foresaw, or run out
of memory; then this process dies, and not the server.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from typing import BinaryIO

from snapllm.diffusion import messages
from snapllm.diffusion.backend import ImageBackend
from snapllm.diffusion.messages import (
    Cancel,
    Done,
    Failed,
    FromWorker,
    Generate,
    Load,
    Loaded,
    Ping,
    Pong,
    Preview,
    Step,
)


class Worker:
    """Reads orders on one thread and carries them out on another."""

    def __init__(self, orders: BinaryIO, answers: BinaryIO) -> None:
        self._orders, self._answers = orders, answers
        self._write_lock = threading.Lock()
        self._work: queue.Queue[Load | Generate] = queue.Queue()
        self._cancelled: set[int] = set()
        self._backend: ImageBackend | None = None

    def run(self) -> None:
        """Works until the orders end; then the process exits at once."""
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            order = self._work.get()
            if isinstance(order, Load):
                self._load(order)
            else:
                self._generate(order)

    def _read(self) -> None:
        while (frame := messages.read(self._orders)) is not None:
            order = messages.to_worker_decoder.decode(frame)
            if isinstance(order, Cancel):
                self._cancelled.add(order.job)
            elif isinstance(order, Ping):
                self._send(Pong())
            else:
                self._work.put(order)
        # The engine is gone, or wants this process gone: whatever is being computed.
        os._exit(0)

    def _send(self, message: FromWorker) -> None:
        with self._write_lock:
            messages.write(self._answers, message)

    def _load(self, order: Load) -> None:
        start = time.perf_counter()
        try:
            self._backend = ImageBackend(order.files, order.num_threads, order.flash_attention)
        except Exception as error:  # whatever it is, the engine says it
            self._send(Failed(None, str(error) or repr(error)))
            return
        load_ms = (time.perf_counter() - start) * 1000
        backend = self._backend
        self._send(Loaded(load_ms, backend.upscale_factor, backend.device_bytes))

    def _generate(self, order: Generate) -> None:
        job = order.job

        def on_step(step: int, num_steps: int, seconds_per_step: float) -> bool:
            self._send(Step(job, step, num_steps, seconds_per_step))
            return job not in self._cancelled

        start = time.perf_counter()
        try:
            assert self._backend is not None, "an image is asked for before a model"
            pictures = None
            if job not in self._cancelled:
                pictures = self._backend.generate(
                    order.request,
                    on_step,
                    lambda step, picture: self._send(Preview(job, step, picture)),
                )
        except Exception as error:  # whatever it is: the model is still there for the next job
            self._send(Failed(job, str(error) or repr(error)))
        else:
            if pictures is None:
                self._send(Failed(job, "the request was cancelled", is_cancelled=True))
            else:
                seconds = time.perf_counter() - start
                self._send(Done(job, pictures, seconds, self._backend.device_bytes))
        self._cancelled.discard(job)


def main() -> None:
    # The server decides about the end: it may still finish what it has begun when a terminal
    # or a supervisor signals the whole group. This process ends with its input.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Whatever a library prints must not end up between the frames.
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    Worker(sys.stdin.buffer, answers).run()
