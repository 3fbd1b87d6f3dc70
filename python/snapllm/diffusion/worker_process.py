"""The engine's side of an image worker: starts it, talks to it, notices its end."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from snapllm._child import python_command, python_environment
from snapllm.diffusion import messages
from snapllm.diffusion.load_failure import load_failure
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
    ToWorker,
)
from snapllm.diffusion.params import ImageRequest, Picture
from snapllm.errors import EngineClosedError, GenerationFailedError, InvalidModelError

log = logging.getLogger("snapllm.diffusion")

PING_S = 5.0
SILENCE_S = 60.0
"""How long a worker may say nothing, pings left unanswered, before it is killed."""
_PIPES_S = 5.0
"""How long the pipes of a process that has ended may take to be closed; they take no time."""


class WorkerProcess:
    """One image model in a process of its own.

    It is started with its first order and again after it has died. All methods but
    `cancel`, `kill`, `close` and `memory_bytes` belong to one thread; those wait for nothing
    that the process does.

    Args:
        files: The model's files by part.
        num_threads: Threads to compute with.
        flash_attention: Use flash attention in the diffusion model.
        cancel_grace_s: Seconds that a cancelled job gets to reach its next step; then the
            process is killed.
    """

    def __init__(
        self,
        files: Mapping[str, str],
        num_threads: int,
        flash_attention: bool,
        cancel_grace_s: float = 30.0,
    ) -> None:
        self._load = Load(dict(files), num_threads, flash_attention)
        self._cancel_grace_s = cancel_grace_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._inbox: queue.Queue[FromWorker | None] = queue.Queue()
        self._outbox: queue.Queue[ToWorker | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._device_bytes = 0
        self._num_jobs = 0
        self._job: int | None = None
        self._is_cancelled = False
        self._kill_timer: threading.Timer | None = None
        self._is_closed = False
        self.num_starts = 0

    def start(self) -> Loaded:
        """Starts the process and loads the model.

        Raises:
            InvalidModelError: The model cannot be loaded, or kills the process.
            EngineClosedError: `close` was called.
        """
        try:
            return self._start()
        except GenerationFailedError as error:
            self.kill()
            raise InvalidModelError(f"the image model cannot be loaded: {error}") from None
        except BaseException:  # an interrupt too
            self.kill()
            raise

    def _start(self) -> Loaded:
        process = subprocess.Popen(
            python_command("snapllm.diffusion.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=python_environment(),
        )
        inbox: queue.Queue[FromWorker | None] = queue.Queue()
        outbox: queue.Queue[ToWorker | None] = queue.Queue()
        with self._lock:
            self._process, self._inbox, self._outbox = process, inbox, outbox
            self._threads = []
            self._start_thread(_read_all, process, inbox, outbox)
            self._start_thread(_write_all, process, outbox)
            is_closed = self._is_closed
        if is_closed:
            raise EngineClosedError("the image model is unloaded")
        self.num_starts += 1
        self._outbox.put(self._load)
        message = self._next()
        if isinstance(message, Failed):
            raise load_failure(message.message, self._load.files)
        assert isinstance(message, Loaded), message
        self._device_bytes = message.device_bytes
        return message

    def _start_thread(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def generate(
        self,
        request: ImageRequest,
        on_step: Callable[[Step], None],
        on_preview: Callable[[Preview], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[list[Picture], float] | None:
        """Makes the images of a checked request.

        Args:
            request: What to make.
            on_step: Called after each step; must not raise.
            on_preview: Called with each preview; must not raise.
            is_cancelled: Whether the request has been cancelled before `cancel` could stop
                it, as while the process starts; must not block.

        Returns:
            The images and the seconds they took; None when it was cancelled.

        Raises:
            GenerationFailedError: Upstream fails, or the process dies.
            InvalidModelError: The process has died before and cannot be started again.
        """
        if not self.is_alive:
            if self._process is not None:  # it has died
                log.warning("starting the image worker again")
            self.start()
        with self._lock:
            if is_cancelled():
                return None
            self._num_jobs += 1
            job = self._job = self._num_jobs
            self._is_cancelled = False
        try:
            self._outbox.put(Generate(job, request))
            while True:
                message = self._next()
                if isinstance(message, Loaded | Pong) or message.job != job:
                    continue  # of a job before, whose end nobody waited for
                if isinstance(message, Step):
                    on_step(message)
                elif isinstance(message, Preview):
                    on_preview(message)
                elif isinstance(message, Done):
                    self._device_bytes = message.device_bytes
                    return message.pictures, message.seconds
                elif message.is_cancelled:
                    return None
                else:
                    raise GenerationFailedError(f"the image failed: {message.message}")
        except GenerationFailedError:
            if self._is_cancelled:
                return None  # killed for that
            raise
        finally:
            with self._lock:
                self._job = None
                if self._kill_timer is not None:
                    self._kill_timer.cancel()
                    self._kill_timer = None

    def cancel(self) -> None:
        """Stops the running job at its next step; kills the process if that takes long."""
        with self._lock:
            job = self._job
            if job is None or self._is_cancelled:
                return
            self._is_cancelled = True
            self._outbox.put(Cancel(job))
            timer = threading.Timer(self._cancel_grace_s, self._kill_if_running, (job,))
            timer.daemon = True
            timer.start()
            self._kill_timer = timer

    def _kill_if_running(self, job: int) -> None:
        # Inside the lock: the next job must find either a worker that stays, or none.
        with self._lock:
            if self._job == job:
                log.warning("a cancelled image does not stop: killing its worker")
                self.kill()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        process = self._process  # another thread may release it
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def gpu_bytes(self) -> int:
        """What the process holds of a device's memory; 0 where it computes on none."""
        return self._device_bytes if self.is_alive else 0

    def memory_bytes(self) -> int:
        """What the process holds at most, so far: of a device's memory where it computes on one,
        else of the machine's; 0 if unknown."""
        pid = self.pid
        if pid is None:
            return 0
        if self._device_bytes:
            return self._device_bytes
        with contextlib.suppress(OSError, ValueError, IndexError):
            status = Path(f"/proc/{pid}/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024
        return 0

    def release(self) -> bool:
        """Ends the process until the next order; True: its memory is free."""
        self.kill()
        self._process = None
        return True

    def close(self) -> None:
        """Ends the process for good."""
        with self._lock:
            self._is_closed = True
        self.kill()

    def kill(self) -> None:
        """Ends the process at once; all of its memory is free when this returns."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        for thread in self._threads:  # which close the pipes
            thread.join(_PIPES_S)

    def _next(self) -> FromWorker:
        """The next message that is an answer; sends pings meanwhile."""
        heard = time.monotonic()
        while True:
            try:
                message = self._inbox.get(timeout=PING_S)
            except queue.Empty:
                if time.monotonic() - heard > SILENCE_S:
                    self.kill()
                    raise GenerationFailedError("the image worker does not answer") from None
                self._outbox.put(Ping())
                continue
            if message is None:
                raise self._death()
            heard = time.monotonic()
            if not isinstance(message, Pong):
                return message

    def _death(self) -> GenerationFailedError:
        process = self._process
        assert process is not None
        try:
            status = process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            status = process.returncode
        reason = f"status {status}"
        with contextlib.suppress(ValueError):
            if status < 0:
                reason = signal.Signals(-status).name
        return GenerationFailedError(
            f"the image worker ended with {reason}; the next request starts a new one"
        )


def _read_all(
    process: subprocess.Popen[bytes],
    inbox: queue.Queue[FromWorker | None],
    outbox: queue.Queue[ToWorker | None],
) -> None:
    assert process.stdout is not None
    try:
        with process.stdout, contextlib.suppress(OSError, ValueError):
            while (frame := messages.read(process.stdout)) is not None:
                inbox.put(messages.from_worker_decoder.decode(frame))
    finally:
        inbox.put(None)
        outbox.put(None)


def _write_all(process: subprocess.Popen[bytes], outbox: queue.Queue[ToWorker | None]) -> None:
    # On a thread of its own: a worker that does not read must not hold up whoever cancels,
    # pings or closes it. Its end is noticed by the reader.
    assert process.stdin is not None
    # Outermost: closing a pipe that nobody reads any more fails, and closes it all the same.
    with contextlib.suppress(OSError, ValueError), process.stdin:
        while (message := outbox.get()) is not None:
            messages.write(process.stdin, message)
