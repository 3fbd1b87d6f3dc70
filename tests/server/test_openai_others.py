"""What clients of llama-server and vLLM send to OpenAI's endpoints, and files of text."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
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
    said = demo_client.completions.create(
        model="demo", prompt="Ada", extra_body=form, max_tokens=200, temperature=0
    )
    assert json.loads(said.choices[0].text).keys() == {"name", "age"}


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


@pytest.mark.parametrize(
    "pattern",
    [r"\d{4}-\d{2}", r"(?:|no )way\.?", r"[^\W\d_]{3}-[\]^-]", r"\"\x41{2}\\\n\"", r"\S|", r"é"],
)
def test_patterns_hold_for_chats_and_completions(demo_client: openai.OpenAI, pattern: str) -> None:
    for form in ({"guided_regex": pattern}, {"structured_outputs": {"regex": pattern}}):
        options: Any = {"model": "demo", "extra_body": form, "max_tokens": 40}
        chat = demo_client.chat.completions.create(messages=QUESTION, **options)
        said = demo_client.completions.create(prompt="Hello", **options).choices[0].text
        for text in (chat.choices[0].message.content or "", said):
            assert re.fullmatch(pattern, text), text


def test_a_completion_is_one_of_the_texts_to_choose_from(demo_client: openai.OpenAI) -> None:
    said = demo_client.completions.create(
        model="demo", prompt="Hello", extra_body={"guided_choice": ["yes", "no"]}
    )
    assert said.choices[0].text in ("yes", "no")


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


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_so_many_tokens_are_predicted(demo_server: Server, path: str) -> None:
    asked = {"messages": QUESTION} if "chat" in path else {"prompt": "One two"}
    body = {"model": "demo", "temperature": 0, "ignore_eos": True, **asked}
    for number in (0, 3):
        answer = demo_server.post(path, body | {"n_predict": number})
        assert answer["usage"]["completion_tokens"] == number
        assert answer["choices"][0]["finish_reason"] == "length"
    unlimited = body | {"n_predict": -1, "grammar": 'root ::= "One"'}
    assert demo_server.post(path, unlimited)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("number", [1, 2])
def test_a_chat_begins_with_the_first_output_and_not_before_it(
    demo_server: Server, number: int
) -> None:
    body = {"model": "demo", "messages": QUESTION, "stream": True, "max_tokens": 8, "n": number}
    request = urllib.request.Request(
        f"{demo_server.url}/v1/chat/completions", json.dumps(body | {"ignore_eos": True}).encode()
    )
    written: list[str] = []
    with urllib.request.urlopen(request, timeout=30) as response:
        while piece := response.read1():
            written.append(piece.decode())
    for index in range(number):
        first = next(piece for piece in written if f'"index":{index}' in piece)
        role, said, *_ = (part for part in first.split("\n\n") if f'"index":{index}' in part)
        assert '"delta":{"role":"assistant"}' in role
        assert '"delta":{"content":' in said


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_each_chunk_says_how_many_tokens_there_are_so_far(demo_server: Server, path: str) -> None:
    asked = {"messages": QUESTION} if "chat" in path else {"prompt": ["One", "Two"], "echo": True}
    body = {"model": "demo", "max_tokens": 200, "n": 2, "ignore_eos": True, "stream": True, **asked}

    def usages(**options: Any) -> list[Any]:
        _, text, _ = demo_server.request("POST", path, body | {"stream_options": options})
        events = [block for block in text.split("\n\n") if block]
        return [json.loads(event[6:]).get("usage") for event in events[:-1]]

    *running, before, last = usages(include_usage=True, continuous_usage_stats=True)
    counts = [usage["completion_tokens"] for usage in (*running, before)]
    assert counts == sorted(counts) and counts[0] < counts[-1]
    assert {usage["prompt_tokens"] for usage in running} == {last["prompt_tokens"]}
    assert before.items() <= last.items() and before["completion_tokens"] > 0
    assert not any(usages(continuous_usage_stats=True))  # as vLLM has it
    assert not any(usages(include_usage=True)[:-1])
    assert not any(usages())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_stop_string_is_part_of_the_answer_where_that_is_asked_for(
    demo_server: Server, path: str, stream: bool
) -> None:
    is_chat = "chat" in path
    asked = {"messages": QUESTION} if is_chat else {"prompt": "What is the capital of France?"}
    body = {"model": "demo", "temperature": 0, "max_tokens": 20, "ignore_eos": True, **asked}

    def said(**options: Any) -> str:
        _, answer, _ = demo_server.request("POST", path, body | options)
        if not options.get("stream"):
            return text_of(answer["choices"][0])
        events = [block for block in answer.split("\n\n") if block]
        return "".join(text_of(json.loads(event[6:])["choices"][0]) for event in events[:-1])

    def text_of(choice: dict[str, Any]) -> str:
        message = choice.get("message") or choice.get("delta") or {}
        return str(message.get("content", "") if is_chat else choice["text"])

    whole = said()
    stop = whole[8:11]
    end = whole.index(stop)
    assert said(stop=stop, stream=stream) == whole[:end]
    shown: Any = {"stop": ["\0no", stop], "include_stop_str_in_output": True, "stream": stream}
    assert said(**shown) == whole[:end] + stop
    assert said(**shown | {"stop": None}) == whole
