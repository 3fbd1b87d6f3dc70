"""The official Anthropic SDK against the server, and what Claude Code sends."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from server_process import Server

GREEDY: dict[str, Any] = {"extra_body": {"temperature": 0}}
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "input_schema": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
HELLO: list[Any] = [{"role": "user", "content": "Hello!"}]
ASK: list[Any] = [{"role": "user", "content": "What's the weather in Tokyo?"}]


@pytest.fixture
def claude(demo_server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=demo_server.url, api_key="snapllm", max_retries=0)


def raw(server: Server, **fields: Any) -> tuple[int, Any]:
    body = {"model": "demo", "max_tokens": 20, "messages": HELLO, **fields}
    status, answer, _ = server.request("POST", "/v1/messages?beta=true", body)
    return status, answer


def test_a_message_is_answered(claude: anthropic.Anthropic) -> None:
    message = claude.messages.create(model="demo", max_tokens=60, messages=HELLO, **GREEDY)
    assert message.role == "assistant"
    [block] = message.content
    assert block.type == "text" and block.text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) > 5


def test_an_answer_goes_on_from_its_beginning(claude: anthropic.Anthropic) -> None:
    question: Any = {"role": "user", "content": "What is machine learning?"}
    begun: Any = {"role": "assistant", "content": "Machine learning is"}
    options: dict[str, Any] = {"model": "demo", "max_tokens": 60, **GREEDY}
    whole = claude.messages.create(messages=[question], **options)
    rest = claude.messages.create(messages=[question, begun], **options)
    with claude.messages.stream(messages=[question, begun], **options) as stream:
        streamed = stream.get_final_text()
    assert whole.content[0].type == rest.content[0].type == "text"
    assert whole.content[0].text == f"Machine learning is{rest.content[0].text}"
    assert streamed == rest.content[0].text
    count = claude.messages.count_tokens(model="demo", messages=[question, begun])
    used = rest.usage
    assert count.input_tokens == used.input_tokens + (used.cache_read_input_tokens or 0)


def test_the_stream_is_the_message(claude: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"model": "demo", "max_tokens": 60, "messages": HELLO, **GREEDY}
    whole = claude.messages.create(**options)
    with claude.messages.stream(**options) as stream:
        types = [event.type for event in stream]
        final = stream.get_final_message()
    assert [b.to_dict() for b in final.content] == [b.to_dict() for b in whole.content]
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert types[0] == "message_start"
    assert types[-2:] == ["message_delta", "message_stop"]


def test_the_event_stream_has_the_documented_form(demo_server: Server) -> None:
    status, text = raw(demo_server, stream=True, temperature=0)
    assert status == 200
    events = []
    for piece in text.strip().split("\n\n"):
        name, data = piece.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert all(name == data["type"] for name, data in events)
    names = [name for name, _ in events]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0][1]["message"]["usage"]["input_tokens"] > 0
    assert events[-2][1]["delta"]["stop_reason"] == "end_turn"


@pytest.mark.parametrize("kind", ["auto", "any", "tool"])
def test_a_tool_is_called_and_its_result_used(claude: anthropic.Anthropic, kind: str) -> None:
    choice: Any = {"type": kind, **({"name": "get_weather"} if kind == "tool" else {})}
    options: dict[str, Any] = {"model": "demo", "max_tokens": 200, "tools": [WEATHER], **GREEDY}
    message = claude.messages.create(messages=ASK, tool_choice=choice, **options)
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert call.type == "tool_use" and call.id.startswith("toolu_")
    assert (call.name, call.input) == ("get_weather", {"location": "Tokyo"})
    with claude.messages.stream(messages=ASK, tool_choice=choice, **options) as stream:
        streamed = stream.get_final_message().content[-1]
    assert streamed.type == "tool_use" and streamed.input == call.input
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees, sunny"}
    answer = claude.messages.create(
        messages=[
            *ASK,
            {"role": "assistant", "content": [b.to_dict() for b in message.content]},
            {"role": "user", "content": [result]},
        ],
        **options,
    )
    assert answer.stop_reason == "end_turn"
    assert answer.content[0].type == "text" and "22" in answer.content[0].text


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
        {"type": "memory_20250818", "name": "memory"},
        {
            "type": "computer_20250124",
            "name": "computer",
            "display_width_px": 1024,
            "display_height_px": 768,
        },
    ],
)
def test_a_tool_of_anthropics_that_the_client_runs_is_called(
    claude: anthropic.Anthropic, tool: Any
) -> None:
    messages: list[Any] = [{"role": "user", "content": "List the files in /tmp."}]
    options: dict[str, Any] = {"model": "demo", "max_tokens": 400, "tools": [tool], **GREEDY}
    choice: Any = {"type": "tool", "name": tool["name"]}
    message = claude.beta.messages.create(messages=messages, tool_choice=choice, **options)
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert call.type == "tool_use" and call.name == tool["name"]
    assert isinstance(call.input.get("command") or call.input.get("action"), str)
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "a.txt"}
    history = [
        *messages,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    assert claude.beta.messages.create(messages=history, **options).content


def test_no_tool_is_called_when_none_is_allowed(claude: anthropic.Anthropic) -> None:
    message = claude.messages.create(
        model="demo",
        max_tokens=40,
        messages=ASK,
        tools=[WEATHER],
        tool_choice={"type": "none"},  # type: ignore[arg-type]
        **GREEDY,
    )
    assert all(block.type == "text" for block in message.content)


def test_thinking_comes_first_signed_and_within_its_budget(claude: anthropic.Anthropic) -> None:
    question: list[Any] = [{"role": "user", "content": "What is 27 + 45?"}]
    options: dict[str, Any] = {"model": "demo", "max_tokens": 300, "messages": question, **GREEDY}
    for thinking in ({"type": "enabled", "budget_tokens": 200}, {"type": "adaptive"}):
        message = claude.messages.create(thinking=thinking, **options)
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.content[0].type == "thinking" and message.content[0].signature
        with claude.messages.stream(thinking=thinking, **options) as stream:
            assert stream.get_final_message().content[0].to_dict() == message.content[0].to_dict()
        history = [
            *question,
            {"role": "assistant", "content": [b.to_dict() for b in message.content]},
            *HELLO,
        ]
        assert claude.messages.create(thinking=thinking, **(options | {"messages": history}))
    omitted: Any = {"type": "adaptive", "display": "omitted"}
    with claude.messages.stream(thinking=omitted, **options) as stream:
        blocks = [block.to_dict() for block in stream.get_final_message().content]
    whole = claude.messages.create(thinking=omitted, **options)
    assert [block.to_dict() for block in whole.content] == blocks
    assert (blocks[0]["type"], blocks[0]["thinking"]) == ("thinking", "")
    # What is sent back shows the model what it thought: the prompt is that of shown thoughts.
    histories = [[b.to_dict() for b in message.content], blocks]
    prompts = [
        claude.messages.count_tokens(
            model="demo",
            messages=[*question, {"role": "assistant", "content": said}, *HELLO],
        ).input_tokens
        for said in histories
    ]
    assert prompts[0] == prompts[1]
    short = claude.messages.create(thinking={"type": "enabled", "budget_tokens": 3}, **options)
    assert short.content[0].type == "thinking"
    assert len(short.content[0].thinking) < 30
    plain = claude.messages.create(thinking={"type": "disabled"}, **options)
    assert [block.type for block in plain.content] == ["text"]


def test_tokens_of_thinking_are_counted_apart(
    claude: anthropic.Anthropic, demo_client: openai.OpenAI
) -> None:
    question: list[Any] = [{"role": "user", "content": "What is 27 + 45?"}]
    options: dict[str, Any] = {"model": "demo", "max_tokens": 300, "messages": question, **GREEDY}
    thinking: Any = {"type": "adaptive"}
    usage = claude.messages.create(thinking=thinking, **options).usage
    assert usage.output_tokens_details is not None
    assert 0 < usage.output_tokens_details.thinking_tokens < usage.output_tokens
    with claude.messages.stream(thinking=thinking, **options) as stream:
        streamed = stream.get_final_message().usage
    assert streamed.output_tokens_details == usage.output_tokens_details
    other = demo_client.chat.completions.create(reasoning_effort="high", **options).usage
    assert other is not None and other.completion_tokens_details is not None
    reasoning_tokens = other.completion_tokens_details.reasoning_tokens
    assert usage.output_tokens_details.thinking_tokens == reasoning_tokens
    plain = claude.messages.create(**options).usage.output_tokens_details
    assert plain is not None and plain.thinking_tokens == 0


def test_stop_sequences_and_limits_are_told_apart(claude: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"model": "demo", "messages": HELLO, **GREEDY}
    whole = claude.messages.create(max_tokens=60, **options).content[0]
    assert whole.type == "text"
    word = whole.text.split()[1]
    stopped = claude.messages.create(max_tokens=60, stop_sequences=[word], **options)
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert claude.messages.create(max_tokens=2, **options).stop_reason == "max_tokens"


def test_cached_prompts_are_counted_apart(claude: anthropic.Anthropic) -> None:
    system: Any = [
        {
            "type": "text",
            "text": "You answer shortly. " * 30,
            "cache_control": {"type": "ephemeral"},
        }
    ]
    options: dict[str, Any] = {"model": "demo", "max_tokens": 5, "system": system}
    first = claude.messages.create(messages=HELLO, **options).usage
    second = claude.messages.create(messages=ASK, **options).usage
    assert first.cache_creation_input_tokens and first.cache_creation_input_tokens > 100
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_5m_input_tokens == first.cache_creation_input_tokens
    assert second.cache_read_input_tokens
    assert second.cache_read_input_tokens >= first.cache_creation_input_tokens
    assert second.cache_creation_input_tokens == 0
    assert second.input_tokens > 0


def test_each_created_token_has_the_time_to_live_of_the_mark_after_it(
    claude: anthropic.Anthropic,
) -> None:
    hour = {"type": "ephemeral", "ttl": "1h"}
    system: Any = [{"type": "text", "text": "You answer in rhymes. " * 30, "cache_control": hour}]
    marked = {"type": "text", "text": "A poem. " * 10, "cache_control": {"type": "ephemeral"}}
    turn: Any = [{"role": "user", "content": [marked]}]
    options: dict[str, Any] = {"model": "demo", "max_tokens": 5, "system": system}
    created = claude.messages.create(messages=turn, **options).usage.cache_creation
    assert created is not None
    assert created.ephemeral_1h_input_tokens > 100 > created.ephemeral_5m_input_tokens > 20
    again = claude.messages.create(messages=turn, **options).usage.cache_creation
    assert again is not None and again.ephemeral_1h_input_tokens == 0


def test_a_question_after_a_marked_text_is_not_counted_as_cached(
    claude: anthropic.Anthropic,
) -> None:
    marked = {"type": "text", "text": "A text. " * 8, "cache_control": {"type": "ephemeral"}}
    question = {"type": "text", "text": "What does it say of them? " * 20}
    options: dict[str, Any] = {"model": "demo", "max_tokens": 5, **GREEDY}
    turn: list[Any] = [{"role": "user", "content": [marked, question]}]
    alone: list[Any] = [{"role": "user", "content": [marked]}]
    counted = claude.messages.count_tokens(model="demo", messages=alone).input_tokens
    usage = claude.messages.create(messages=turn, **options).usage
    created = usage.cache_creation_input_tokens or 0
    assert 0 < created + (usage.cache_read_input_tokens or 0) <= counted
    assert usage.input_tokens > 100


def test_a_mark_on_tools_is_one_on_the_tools_alone(claude: anthropic.Anthropic) -> None:
    tool: Any = WEATHER | {"description": "It rains. " * 30, "cache_control": {"type": "ephemeral"}}
    messages: list[Any] = [{"role": "user", "content": "What is the weather like? " * 20}]
    usage = claude.messages.create(
        model="demo", max_tokens=5, tools=[tool], messages=messages
    ).usage
    assert usage.cache_creation_input_tokens and usage.cache_creation_input_tokens > 50
    assert usage.input_tokens > 100


def test_a_stream_tells_from_its_start_what_was_cached(claude: anthropic.Anthropic) -> None:
    text = "You answer in few words. " * 30
    marked = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    options: dict[str, Any] = {"model": "demo", "max_tokens": 5, "system": [marked]}
    for is_first in (True, False):
        with claude.messages.stream(messages=HELLO, **options) as stream:
            started = next(event for event in stream if event.type == "message_start")
            opened = started.message.usage.to_dict()
            usage = stream.get_final_message().usage
        counts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        assert [opened[name] for name in counts] == [getattr(usage, name) for name in counts]
        assert usage.cache_creation is not None
        created = usage.cache_creation.ephemeral_5m_input_tokens
        assert created == usage.cache_creation_input_tokens
        assert (created > 100) == is_first


def test_no_tokens_at_all_fill_the_prompt_cache(claude: anthropic.Anthropic) -> None:
    text = "You answer politely. " * 30
    marked = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    options: dict[str, Any] = {"model": "demo", "system": [marked], "tools": [WEATHER]}
    warm = claude.messages.create(max_tokens=0, messages=HELLO, **options)
    assert (warm.content, warm.stop_reason, warm.stop_sequence) == ([], "max_tokens", None)
    counted = claude.messages.count_tokens(messages=HELLO, **options).input_tokens
    usage = warm.usage
    assert usage.output_tokens == 0
    assert usage.cache_creation_input_tokens and usage.cache_creation_input_tokens > 100
    computed = usage.input_tokens + usage.cache_creation_input_tokens
    assert computed + (usage.cache_read_input_tokens or 0) == counted
    with claude.messages.stream(max_tokens=0, messages=HELLO, **options) as stream:
        types = [event.type for event in stream]
        again = stream.get_final_message()
    assert types == ["message_start", "message_delta", "message_stop"]
    assert (again.content, again.stop_reason) == ([], "max_tokens")
    # The prompt whole: not even its last token is computed again.
    assert (again.usage.cache_read_input_tokens, again.usage.output_tokens) == (counted, 0)
    asked = claude.messages.create(max_tokens=5, messages=ASK, **options).usage
    assert asked.cache_creation_input_tokens == 0
    assert asked.cache_read_input_tokens
    assert asked.cache_read_input_tokens >= usage.cache_creation_input_tokens


def test_thinking_may_be_left_to_the_model_that_generates_nothing(
    claude: anthropic.Anthropic,
) -> None:
    adaptive: Any = {"type": "adaptive"}
    warm = claude.messages.create(model="demo", max_tokens=0, messages=HELLO, thinking=adaptive)
    assert warm.content == []
    assert warm.usage.output_tokens == 0


def test_tokens_are_counted_as_they_are_used(claude: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"model": "demo", "messages": ASK, "tools": [WEATHER]}
    counted = claude.messages.count_tokens(**options).input_tokens
    usage = claude.messages.create(max_tokens=1, **options).usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    assert claude.messages.count_tokens(thinking=thinking, **options).input_tokens > 50


def test_models_have_anthropics_form_for_its_clients(
    claude: anthropic.Anthropic, demo_server: Server
) -> None:
    assert [model.id for model in claude.models.list()] == ["demo"]
    model = claude.models.retrieve("demo")
    assert (model.type, model.lifecycle) == ("model", "active")
    assert model.max_input_tokens and model.max_input_tokens > 1000
    assert demo_server.get("/v1/models")["object"] == "list"


def test_models_come_in_pages_for_anthropics_clients(server: Server) -> None:
    claude = anthropic.Anthropic(base_url=server.url, api_key="snapllm", max_retries=0)
    page = claude.models.list(limit=1)
    assert (page.has_more, page.first_id, page.last_id) == (True, "llama", "llama")
    assert [model.id for model in page] == ["llama", "qwen"]
    assert [model.id for model in claude.models.list(before_id="qwen")] == ["llama"]
    for query in ("limit=0", "limit=1001", "limit=x", "after_id=no", "before_id=no"):
        headers = {"anthropic-version": "2023-06-01"}
        status, answer, _ = server.request("GET", f"/v1/models?{query}", headers=headers)
        assert (status, answer["type"]) == (400, "error")
        assert answer["error"]["type"] == "invalid_request_error"
        assert answer["error"]["param"] == query.partition("=")[0]
        # OpenAI's list has no pages, and no such parameters.
        assert len(server.get(f"/v1/models?{query}")["data"]) == 2


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"model": "nope"}, anthropic.NotFoundError, "not_found_error"),
        ({"max_tokens": -1}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error"),
        (
            {"messages": [{"role": "user", "content": "word " * 60_000}]},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "odd"}]}]},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
        (
            {"tool_choice": {"type": "tool", "name": "nope"}},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
    ],
)
def test_errors_raise_the_sdks_own_exceptions(
    claude: anthropic.Anthropic, fields: dict[str, Any], kind: type[Exception], code: str
) -> None:
    options: dict[str, Any] = {"model": "demo", "max_tokens": 5, "messages": HELLO} | fields
    with pytest.raises(kind) as caught:
        claude.messages.create(**options)
    assert isinstance(caught.value, anthropic.APIStatusError)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", code)
    assert caught.value.request_id


def test_what_claude_code_sends_is_accepted(demo_server: Server) -> None:
    def tool(i: int) -> dict[str, Any]:
        properties = {f"p{j}": {"type": "string", "description": "x" * 40} for j in range(3)}
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {"name": f"Tool{i}", "description": "Does something.", "input_schema": schema}

    status, answer = raw(
        demo_server,
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.0; cch=abc;"},
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        ],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>be brief</system-reminder>"},
                    {"type": "text", "text": "Hello!", "cache_control": {"type": "ephemeral"}},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "Hi."}]},
            {"role": "system", "content": "The user switched to plan mode."},
            {"role": "user", "content": "Go on."},
        ],
        tools=[tool(i) for i in range(14)],
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        context_management={"edits": [{"type": "clear_thinking_20251015"}]},
        metadata={"user_id": "someone"},
        some_future_field={"a": 1},
    )
    assert status == 200, answer
    assert answer["type"] == "message"


def test_the_billing_line_does_not_end_the_common_prefix(demo_server: Server) -> None:
    def cached(cch: str) -> int:
        system = f"x-anthropic-billing-header: cc_version=2.0; cch={cch};\n" + "Be kind. " * 40
        status, answer = raw(demo_server, system=system)
        assert status == 200
        read: int = answer["usage"]["cache_read_input_tokens"]
        return read

    cached("aaa")
    assert cached("bbb") > 100
