"""What no grammar can be made of, through the official SDKs: 400s that name the request's field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from server_process import Server

AMBIGUOUS = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^((a?){60}){60}$"}},
    "required": ["a"],
}
MESSAGES: list[Any] = [{"role": "user", "content": "Go"}]


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """The field at fault and the message."""
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as error:
        call()
    body: Any = error.value.body
    detail = body.get("error", body)
    return detail["param"], detail["message"]


def test_an_ambiguous_schema_is_named_by_its_field(demo_client: openai.OpenAI) -> None:
    chat, model = demo_client.chat.completions, "demo"
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": AMBIGUOUS}}
    param, message = refused(
        lambda: chat.create(model=model, messages=MESSAGES, response_format=form)
    )
    assert param == "response_format.json_schema.schema"
    assert message.startswith(param)
    completions = demo_client.completions
    body = {"response_format": form}
    param, message = refused(lambda: completions.create(model=model, prompt="Go", extra_body=body))
    assert param == "response_format.json_schema.schema"
    assert message.startswith(param)
    text: Any = {"format": {"type": "json_schema", "name": "n", "schema": AMBIGUOUS}}
    param, _ = refused(lambda: demo_client.responses.create(model=model, input="Go", text=text))
    assert param == "text.format.schema"
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": AMBIGUOUS}}]
    param, _ = refused(lambda: chat.create(model=model, messages=MESSAGES, tools=tools))
    assert param == "tools"


@pytest.mark.parametrize("field", ["guided_regex", "structured_outputs.regex", "guided_grammar"])
def test_an_ambiguous_pattern_is_named_by_its_field(demo_client: openai.OpenAI, field: str) -> None:
    given = "root ::= (" if field == "guided_grammar" else "((a?){60}){60}"
    name, _, inner = field.partition(".")
    options: Any = {"model": "demo", "extra_body": {name: {inner: given} if inner else given}}
    for call in (
        lambda: demo_client.chat.completions.create(messages=MESSAGES, **options),
        lambda: demo_client.completions.create(prompt="Go", **options),
    ):
        param, message = refused(call)
        assert param == field
        assert message.startswith(f"{field} must be one that can be used")


def test_messages_name_the_field_too(demo_server: Server) -> None:
    client = anthropic.Anthropic(base_url=demo_server.url, api_key="x", max_retries=0)
    config = {"format": {"type": "json_schema", "schema": AMBIGUOUS}}
    param, _ = refused(
        lambda: client.messages.create(
            model="demo", max_tokens=9, messages=MESSAGES, extra_body={"output_config": config}
        )
    )
    assert param == "output_config.format.schema"


def test_a_schema_that_leads_to_itself_ends_no_server(demo_server: Server) -> None:
    client = anthropic.Anthropic(base_url=demo_server.url, api_key="x", max_retries=0)
    own = {"$ref": "#/$defs/a"}
    schema = {"type": "object", "allOf": [own, {"title": "x"}], "$defs": {"a": own}}
    tool: Any = {"name": "f", "input_schema": schema}
    param, message = refused(
        lambda: client.messages.create(model="demo", max_tokens=9, messages=MESSAGES, tools=[tool])
    )
    assert param == "tools[0].input_schema"
    assert "includes itself" in message
    assert client.messages.create(model="demo", max_tokens=2, messages=MESSAGES).content


@pytest.mark.parametrize("token", ["<|im_end|>", "<[99999]>"])
def test_a_grammar_of_tokens_that_cannot_be_sampled_is_at_fault(
    demo_client: openai.OpenAI, token: str
) -> None:
    grammar = {"grammar": f'root ::= "a" {token}'}
    with pytest.raises(openai.BadRequestError, match="no token is left to sample"):
        demo_client.completions.create(model="demo", prompt="Go", extra_body=grammar)
