"""What clients of llama-server and vLLM send to OpenAI's endpoints, and files of text."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from server_process import Server

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def generous() -> Iterator[openai.OpenAI]:
    """A server with another limit of answers that are given none."""
    server = Server("--default-max-tokens", "300").start(1)
    try:
        yield openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.mark.parametrize(
    "form", [{"guided_choice": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}]
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_one_of_the_texts_to_choose_from(
    demo_client: openai.OpenAI, form: dict[str, Any], stream: bool
) -> None:
    options: Any = {"model": "demo", "messages": QUESTION, "extra_body": form, "max_tokens": 20}
    if stream:
        chunks = demo_client.chat.completions.create(stream=True, **options)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        said = demo_client.chat.completions.create(**options).choices[0].message.content or ""
    assert said in ("yes", "no")


@pytest.mark.parametrize("form", [{"guided_json": PERSON}, {"json_schema": PERSON}])
def test_an_answer_matches_a_schema_by_any_of_its_names(
    demo_client: openai.OpenAI, form: dict[str, Any]
) -> None:
    answer = demo_client.chat.completions.create(
        model="demo", messages=QUESTION, extra_body=form, max_tokens=200, temperature=0
    )
    assert json.loads(answer.choices[0].message.content or "").keys() == {"name", "age"}


def test_grammars_hold_for_chats_and_completions(demo_client: openai.OpenAI) -> None:
    options: Any = {"model": "demo", "extra_body": {"grammar": 'root ::= [0-9]{3} "!"'}}
    chat = demo_client.chat.completions.create(messages=QUESTION, **options)
    said = demo_client.completions.create(prompt="Hello", **options).choices[0].text
    for text in (chat.choices[0].message.content or "", said):
        assert len(text) == 4 and text[:3].isdigit() and text[3] == "!"
    options["extra_body"] = {"grammar": "root ::= ("}
    with pytest.raises(openai.BadRequestError) as error:
        demo_client.chat.completions.create(messages=QUESTION, **options)
    assert error.value.param == "grammar"


def test_a_file_of_text_is_read_as_a_text(demo_client: openai.OpenAI) -> None:
    text = "The secret word is banana."
    data = "data:text/plain;base64," + base64.b64encode(text.encode()).decode()
    asked = "What is the secret word?"
    chats: list[list[Any]] = [
        [{"type": "file", "file": {"filename": "a.txt", "file_data": data}}],
        [{"type": "text", "text": f"a.txt\n{text}"}],
    ]
    prompts = [
        demo_client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": [*parts, {"type": "text", "text": asked}]}],
            max_tokens=20,
            temperature=0,
        )
        for parts in chats
    ]
    assert prompts[0].choices[0].message.content == prompts[1].choices[0].message.content
    usages = [each.usage for each in prompts]
    assert usages[0] and usages[1] and usages[0].prompt_tokens == usages[1].prompt_tokens
    file: Any = {"type": "input_file", "filename": "a.txt", "file_data": data}
    content: Any = [file, {"type": "input_text", "text": asked}]
    response = demo_client.responses.create(
        model="demo",
        input=[{"role": "user", "content": content}],
        max_output_tokens=20,
        temperature=0,
    )
    assert response.output_text == prompts[0].choices[0].message.content
    assert response.usage and response.usage.input_tokens == usages[0].prompt_tokens
    file["file_data"] = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7").decode()
    with pytest.raises(openai.BadRequestError) as error:
        demo_client.responses.create(model="demo", input=[{"role": "user", "content": content}])
    assert error.value.param == "input[0].content[0].file_data"


def test_a_call_without_arguments_and_a_result_of_nothing_are_read(demo_server: Server) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": None}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": None},
    ]
    body = {"model": "demo", "messages": messages, "max_tokens": 5}
    assert demo_server.post("/v1/chat/completions", body)["choices"][0]["message"]["content"]


def test_the_list_says_how_long_a_context_is(demo_server: Server) -> None:
    [model] = demo_server.get("/v1/models")["data"]
    [native] = demo_server.get("/api/v1/models")["models"]
    assert model["max_model_len"] == native["context_size"] > 0


def test_how_long_an_answer_gets_without_a_limit_is_an_option(generous: openai.OpenAI) -> None:
    answer = generous.chat.completions.create(
        model="demo", messages=QUESTION, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None and answer.usage.completion_tokens == 300
