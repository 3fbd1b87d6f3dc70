"""Pages of Anthropic's list of models."""

from __future__ import annotations

import json

import pytest

from snapllm.errors import InvalidRequestError
from snapllm.protocol.anthropic_models import ListQuery, models_object, read_list_query
from snapllm.protocol.listed_models import ListedModel

MODELS = [ListedModel(name, 0) for name in "abcde"]


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        (ListQuery(), "abcde", False),
        (ListQuery(limit=2), "ab", True),
        (ListQuery(limit=2, after_id="b"), "cd", True),
        (ListQuery(limit=2, after_id="c"), "de", False),
        (ListQuery(limit=2, after_id="e"), "", False),
        (ListQuery(limit=2, before_id="d"), "bc", True),
        (ListQuery(limit=2, before_id="c"), "ab", False),
        (ListQuery(limit=2, before_id="a"), "", False),
    ],
)
def test_a_page_is_next_to_its_cursor(query: ListQuery, ids: str, has_more: bool) -> None:
    page = json.loads(models_object(MODELS, query))
    assert "".join(model["id"] for model in page["data"]) == ids
    assert page["has_more"] is has_more
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


def test_a_page_has_at_most_twenty_models_by_default() -> None:
    models = [ListedModel(str(number), 0) for number in range(30)]
    page = json.loads(models_object(models, read_list_query({})))
    assert (len(page["data"]), page["has_more"]) == (20, True)


def test_a_page_is_next_to_one_model() -> None:
    with pytest.raises(InvalidRequestError, match="together"):
        read_list_query({"after_id": "a", "before_id": "c"})
