"""The steps of an image on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from snapllm._checks import convert, plain_number
from snapllm.diffusion.job import ImageStep, JobEvent, Listener

_WIDTH = 30


class ProgressBar:
    """Draws one line, over and over; nothing where nobody sees it.

    Args:
        file: A terminal; standard error by default.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = sys.stderr if file is None else file
        self._is_drawn = False

    def show(self, event: ImageStep) -> None:
        """Draws the state after a step."""
        if not self._file.isatty():
            return
        steps = f"{event.step}/{event.num_steps}"
        if event.num_images > 1:
            steps = f"image {event.image_number}/{event.num_images}, {steps}"
        filled = _WIDTH * event.step // max(event.num_steps, 1)
        bar = "#" * filled + "-" * (_WIDTH - filled)
        self._file.write(f"\r[{bar}] {steps}  {event.seconds_per_step:.2f} s/step ")
        self._file.flush()
        self._is_drawn = True

    def close(self) -> None:
        """Ends the line."""
        if self._is_drawn:
            self._file.write("\n")


@contextlib.contextmanager
def progress_listener(
    progress: bool | Callable[[ImageStep], None] | None,
) -> Iterator[Listener | None]:
    """What is to be called with the events of a job.

    Raises:
        InvalidRequestError: It is neither a function nor whether to draw a bar.
    """
    if progress is not None and not callable(progress):
        progress = convert(plain_number(progress), bool, "progress")
    bar = ProgressBar()
    show = progress if callable(progress) else bar.show

    def listen(event: JobEvent) -> None:
        if isinstance(event, ImageStep):
            show(event)

    try:
        yield listen if progress else None
    finally:
        bar.close()
