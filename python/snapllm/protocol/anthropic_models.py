"""Anthropic's Models API.

Reference: Anthropic API, "List Models", "Get a Model".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from snapllm._checks import convert
from snapllm.errors import InvalidRequestError
from snapllm.protocol.listed_models import ListedModel

if TYPE_CHECKING:
    from snapllm.protocol.anthropic_answer_types import AnthropicModel, AnthropicModelList

_encode = msgspec.json.encode
_OF_ANTHROPICS = "For Anthropic's clients, which send `anthropic-version`."


class ListQuery(msgspec.Struct, frozen=True):
    """Which page of the list is asked for: that after a model or before one, or the first."""

    limit: Annotated[int, Meta(ge=1, le=1000, description=_OF_ANTHROPICS)] = 20
    after_id: Annotated[str | None, Meta(description=_OF_ANTHROPICS)] = None
    before_id: Annotated[str | None, Meta(description=_OF_ANTHROPICS)] = None


def read_list_query(query: Mapping[str, str]) -> ListQuery:
    """Reads the query of GET /v1/models.

    Raises:
        InvalidRequestError: A parameter does not fit; `param` names it.
    """
    read = convert(dict(query), ListQuery, strict=False)
    if read.after_id is not None and read.before_id is not None:
        raise InvalidRequestError(
            "before_id and after_id cannot be given together", param="before_id"
        )
    return read


def models_object(models: Sequence[ListedModel], query: ListQuery) -> bytes:
    """The body of GET /v1/models.

    Raises:
        InvalidRequestError: The model that the page is next to is not listed.
    """
    if query.before_id is not None:
        wanted = models[: _position(models, query.before_id, "before_id")]
        page = wanted[-query.limit :]
    else:
        after = query.after_id
        wanted = models[_position(models, after, "after_id") + 1 :] if after is not None else models
        page = wanted[: query.limit]
    body: AnthropicModelList = {
        "data": [_model(model) for model in page],
        "has_more": len(wanted) > len(page),
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }
    return _encode(body)


def model_object(model: ListedModel) -> bytes:
    """The body of GET /v1/models/{id}."""
    return _encode(_model(model))


def _position(models: Sequence[ListedModel], model_id: str, param: str) -> int:
    for i, model in enumerate(models):
        if model.id == model_id:
            return i
    raise InvalidRequestError(f"{param}: no model {model_id!r} is listed", param=param)


def _model(model: ListedModel) -> AnthropicModel:
    at = datetime.fromtimestamp(model.loaded_at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": at,
        "lifecycle": "active",
        "max_input_tokens": model.context_size,
    }
