"""The items of OpenAI's Responses API that outlive a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snapllm.conversation import render_messages
from snapllm.errors import InvalidRequestError, NotFoundError, PreviousResponseNotFoundError
from snapllm.protocol import responses
from snapllm.protocol.responses_items import (
    input_to_keep,
    list_object,
    output_to_keep,
    read_list_query,
)
from snapllm.server.kept_responses import KeptResponses, OwnResponses

SAID = {
    "id": "msg_said",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Tokyo.", "annotations": []}],
}


@pytest.fixture
def kept() -> OwnResponses:
    return KeptResponses().of("")


def parse(kept: OwnResponses | None, **fields: Any) -> responses.Parsed:
    return responses.parse(json.dumps({"model": "m", "input": "Hi"} | fields).encode(), kept)


def shown(parsed: responses.Parsed) -> list[tuple[str, str]]:
    rendered = json.loads(render_messages(parsed.request.messages, lambda *_: ""))
    return [(turn["role"], turn["content"]) for turn in rendered]


def answered(kept: OwnResponses, name: str, parsed: responses.Parsed) -> None:
    kept.keep(name, b"{}", input_to_keep(parsed.conversation), output_to_keep([SAID]))


def test_a_response_goes_on_from_the_conversation_before_it(kept: OwnResponses) -> None:
    answered(kept, "resp_1", parse(kept, input="Capital of Japan?", instructions="Be brief."))
    second = parse(kept, input="And of Peru?", previous_response_id="resp_1")
    assert shown(second) == [
        ("user", "Capital of Japan?"),
        ("assistant", "Tokyo."),
        ("user", "And of Peru?"),
    ]
    answered(kept, "resp_2", second)
    kept.remove("resp_1")
    third = parse(kept, previous_response_id="resp_2", instructions="Be long.")
    assert shown(third) == [
        ("system", "Be long."),
        *shown(second),
        ("assistant", "Tokyo."),
        ("user", "Hi"),
    ]


def test_a_reference_stands_for_the_item(kept: OwnResponses) -> None:
    answered(kept, "resp_1", parse(kept, input="Capital of Japan?"))
    for form in ({"type": "item_reference", "id": "msg_said"}, {"id": "msg_said"}):
        turns = shown(parse(kept, input=[{"role": "user", "content": "Capital?"}, form]))
        assert turns == [("user", "Capital?"), ("assistant", "Tokyo.")]


def test_what_is_not_kept_is_named(kept: OwnResponses) -> None:
    with pytest.raises(PreviousResponseNotFoundError) as previous:
        parse(kept, previous_response_id="resp_x")
    assert previous.value.param == "previous_response_id"
    with pytest.raises(NotFoundError) as item:
        parse(kept, input=[{"type": "item_reference", "id": "msg_x"}])
    assert item.value.param == "input[0]"


def test_a_history_that_is_sent_again_has_the_same_items() -> None:
    history = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}]
    first = input_to_keep(parse(None, input=history).conversation)
    again = input_to_keep(parse(None, input=[*history, SAID]).conversation)
    assert again[:2] == first
    assert len({item.id for item in again}) == 3 and again[2].id == "msg_said"


def test_items_are_listed_in_full() -> None:
    items = [
        {"role": "user", "content": "Hi"},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "22"},
    ]
    listed = [
        json.loads(each.data) for each in input_to_keep(parse(None, input=items).conversation)
    ]
    assert all(each.pop("id") for each in listed)
    assert listed[0] == {
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "Hi"}],
    }
    assert listed[1:] == [item | {"status": "completed"} for item in items[1:]]


def test_a_list_comes_in_pages_in_either_order() -> None:
    texts = [{"role": "user", "content": str(i)} for i in range(5)]
    items = input_to_keep(parse(None, input=texts).conversation)

    def page(**query: str) -> tuple[list[str], bool]:
        body = json.loads(list_object(items, read_list_query(query)))
        assert body["first_id"] == body["data"][0]["id"]
        assert body["last_id"] == body["data"][-1]["id"]
        return [item["content"][0]["text"] for item in body["data"]], body["has_more"]

    assert page() == (["4", "3", "2", "1", "0"], False)
    assert page(limit="2", order="asc") == (["0", "1"], True)
    assert page(limit="3", order="asc", after=items[1].id) == (["2", "3", "4"], False)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *(({"limit": limit}, "limit") for limit in ("0", "101", "x")),
        ({"order": "up"}, "order"),
        ({"after": "msg_x"}, "after"),
    ],
)
def test_a_query_that_does_not_fit_is_named(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        list_object([], read_list_query(query))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}],
        },
        {
            "type": "function_call_output",
            "call_id": "a",
            "output": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}],
        },
    ],
)
def test_a_listed_image_says_how_it_was_looked_at(fields: dict[str, Any]) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}
    *_, kept = input_to_keep(parse(None, input=[call, fields]).conversation)
    listed = json.loads(kept.data)
    [part] = listed.get("content") or listed["output"]
    assert part["detail"] == "auto"
