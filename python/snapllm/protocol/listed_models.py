"""What the model lists of OpenAI's and Anthropic's APIs say of a model."""

from __future__ import annotations

from typing import NamedTuple


class ListedModel(NamedTuple):
    """A model of any kind."""

    id: str
    loaded_at: int
    """Unix time."""
    context_size: int | None = None
    """Of a text model that was loaded."""
