"""The official OpenAI SDK with answers that are kept."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from server_process import Server

OPTIONS: dict[str, Any] = {"model": "demo", "temperature": 0}
JAPAN = "What is the capital of Japan?"
FRANCE = "What is the capital of France?"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_response_goes_on_from_one_before(demo_client: openai.OpenAI, is_streamed: bool) -> None:
    if is_streamed:
        with demo_client.responses.stream(input=JAPAN, **OPTIONS) as stream:
            first: Any = stream.get_final_response()
    else:
        first = demo_client.responses.create(input=JAPAN, **OPTIONS)
    second = demo_client.responses.create(input=FRANCE, previous_response_id=first.id, **OPTIONS)
    assert "Paris" in second.output_text
    assert second.previous_response_id == first.id
    by_hand: Any = [
        {"role": "user", "content": JAPAN},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": FRANCE},
    ]
    same = demo_client.responses.create(input=by_hand, **OPTIONS)
    assert same.usage is not None and second.usage is not None
    assert same.usage.input_tokens == second.usage.input_tokens
    # What of the first was computed is not computed again.
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.total_tokens - 1


def test_an_answer_is_found_again_listed_and_forgotten(demo_client: openai.OpenAI) -> None:
    answer = demo_client.responses.create(input=JAPAN, **OPTIONS)
    assert answer.to_dict()["store"] is True
    found = demo_client.responses.retrieve(answer.id)
    assert found.to_dict() == answer.to_dict()
    second = demo_client.responses.create(input=FRANCE, previous_response_id=answer.id, **OPTIONS)
    items = list(demo_client.responses.input_items.list(second.id, order="asc", limit=2))
    assert [item.to_dict()["content"][0]["text"] for item in items] == [  # type: ignore[index]
        JAPAN,
        answer.output_text,
        FRANCE,
    ]
    demo_client.responses.delete(answer.id)
    for gone in (
        lambda: demo_client.responses.retrieve(answer.id),
        lambda: demo_client.responses.delete(answer.id),
        lambda: demo_client.responses.input_items.list(answer.id),
    ):
        with pytest.raises(openai.NotFoundError, match="not found"):
            gone()
    with pytest.raises(openai.BadRequestError) as caught:
        demo_client.responses.create(input="x", previous_response_id=answer.id, **OPTIONS)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"
    assert demo_client.responses.retrieve(second.id).id == second.id


def test_what_is_not_to_be_stored_is_not(demo_client: openai.OpenAI) -> None:
    answer = demo_client.responses.create(input=JAPAN, store=False, **OPTIONS)
    assert answer.to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError):
        demo_client.responses.retrieve(answer.id)
    reference: Any = [{"type": "item_reference", "id": answer.output[0].id}]
    with pytest.raises(openai.NotFoundError) as caught:
        demo_client.responses.create(input=reference, **OPTIONS)
    assert caught.value.param == "input[0]"


@pytest.mark.parametrize("field", ["conversation", "background", "prompt", "moderation"])
def test_what_cannot_be_done_is_refused(demo_client: openai.OpenAI, field: str) -> None:
    value: Any = {
        "conversation": "conv_1",
        "background": True,
        "prompt": {"id": "pmpt_1"},
        "moderation": {"model": "omni-moderation-latest"},
    }
    with pytest.raises(openai.BadRequestError) as caught:
        demo_client.responses.create(input="x", extra_body={field: value[field]}, **OPTIONS)
    assert caught.value.param == field


def test_the_tokens_of_a_prompt_are_counted_before_it_is_sent(demo_client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    first = demo_client.responses.create(input=JAPAN, **OPTIONS)
    for fields in (
        {"input": JAPAN},
        {"input": JAPAN, "instructions": "Be brief.", "tools": [tool]},
        {"input": [{"role": "user", "content": JAPAN}], "reasoning": {"effort": "low"}},
        {"input": FRANCE, "previous_response_id": first.id},
    ):
        wanted: Any = fields
        counted = demo_client.responses.input_tokens.count(model="demo", **wanted)
        assert counted.object == "response.input_tokens"
        answer = demo_client.responses.create(max_output_tokens=1, **wanted, **OPTIONS)
        assert answer.usage is not None and counted.input_tokens == answer.usage.input_tokens
    assert demo_client.responses.input_tokens.count(input=JAPAN).input_tokens > 0
    before = demo_client.responses.input_tokens.count(previous_response_id=first.id)
    assert before.input_tokens > 0
    for fields, param in (
        ({}, "input"),
        ({"conversation": "conv_1", "input": "x"}, "conversation"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            demo_client.responses.input_tokens.count(**fields)  # type: ignore[arg-type]
        assert caught.value.param == param


def test_clients_of_other_keys_do_not_find_it(locked_server: Server) -> None:
    one, two = (
        openai.OpenAI(base_url=locked_server.url + "/v1", api_key=key, max_retries=0)
        for key in ("one", "two")
    )
    answer = one.responses.create(input=JAPAN, **OPTIONS)
    with pytest.raises(openai.NotFoundError):
        two.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError):
        two.responses.create(input="x", previous_response_id=answer.id, **OPTIONS)
    assert one.responses.retrieve(answer.id).id == answer.id


def test_another_path_beside_responses_is_none_of_them(server: Server) -> None:
    for method in ("POST", "GET"):
        status, answer, _ = server.request(method, "/v1/responses/compact", {})
        assert (status, answer["error"]["code"]) == (404, "not_found")
        assert "Unknown path" in answer["error"]["message"]
    status, _, headers = server.request("GET", "/v1/responses/input_tokens")
    assert (status, headers["Allow"]) == (405, "POST")
