"""Ids of models, of which there is one each whatever kind it is."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Literal

from snapllm._checks import is_file
from snapllm._parts import part_name
from snapllm.errors import InvalidRequestError, ModelFileNotFoundError

_Kind = Literal["text", "image"]


class ModelIds:
    """Keeps a load from taking an id that a model of the other kind has, or is loaded under."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loading: dict[_Kind, Counter[str]] = {"text": Counter(), "image": Counter()}

    @contextlib.contextmanager
    def loading(
        self, model_id: str, kind: _Kind, path: str, others: Callable[[], Container[str]]
    ) -> Iterator[None]:
        """Reserves an id while a model is loaded under it.

        Args:
            model_id: The id.
            kind: What is loaded.
            path: From where.
            others: The ids of the models of the other kind.

        Raises:
            ModelFileNotFoundError: The id is taken, and there is no such file.
            InvalidRequestError: The id is taken.
        """
        other = self._loading["image" if kind == "text" else "text"]
        with self._lock:
            if other[model_id] or model_id in others():
                check_is_there(path)
                raise InvalidRequestError(
                    f"model_id {model_id} is taken by a model of another kind", param="model_id"
                )
            self._loading[kind][model_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._loading[kind][model_id] -= 1
                if not self._loading[kind][model_id]:
                    del self._loading[kind][model_id]


def default_id(path: str) -> str:
    """What a model is called that gets no id: its file's stem, without a part's number."""
    return part_name(Path(path).stem).name


def check_is_there(path: str | Path) -> None:
    """Raises `ModelFileNotFoundError` where there is no such file."""
    if not is_file(Path(path)):
        raise ModelFileNotFoundError(f"Model file not found: {path}", filename=str(path))
