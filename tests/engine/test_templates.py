"""Chats with tools and thinking, through the chat templates of every family upstream knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import snapllm
from snapllm.engine import demo_model_path
from snapllm.server.warm_up import warm_up

FOLDER = (
    Path(__file__).parents[2] / "third_party" / "llama.cpp" / "upstream" / "models" / "templates"
)
TEMPLATES = sorted(FOLDER.glob("*.jinja"))
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": "What is the weather in Paris?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "abcdefghi",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "Sunny"},
    {"role": "assistant", "content": "It is sunny."},
    {"role": "user", "content": "And in Rome?"},
]
# Templates that take no system turn, no tools or no thinking refuse some of these; each
# refusal is an error that says so.
REQUESTS: list[dict[str, Any]] = [
    {"messages": "Hello"},
    {"messages": "Hello", "thinking": True},
    {"messages": "Hello", "thinking": 20},
    {"messages": HISTORY, "tools": [TOOL]},
    {"messages": [*HISTORY[:2], {"role": "assistant", "content": "It is"}]},
    {"messages": HISTORY, "tools": [TOOL], "thinking": True},
    {"messages": "Weather?", "tools": [TOOL], "tool_choice": "required"},
    {"messages": "Weather?", "json_schema": {"type": "object", "properties": {"a": {}}}},
    {"messages": "Weather?", "json_schema": {"type": "object"}, "tools": [TOOL]},
    {
        "messages": "Weather?",
        "json_schema": {"type": "object"},
        "tools": [TOOL],
        "tool_choice": "required",
    },
]


@pytest.mark.skipif(not TEMPLATES, reason="this checkout has no upstream sources")
def test_the_templates_were_found() -> None:
    assert len(TEMPLATES) > 40


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_every_family_answers_or_says_why_not(llama_path: Path, template: Path) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        try:
            model = engine.load(
                llama_path, "m", chat_template=template.read_text(), context_size=8192
            )
        except snapllm.InvalidRequestError as error:
            pytest.fail(f"the template cannot be read: {error}")
        num_answered = 0
        for request in REQUESTS:
            options = dict(request)
            messages = options.pop("messages")
            try:
                whole = model.chat(messages, temperature=0, max_tokens=12, **options)
                events = list(
                    model.chat(messages, temperature=0, max_tokens=12, stream=True, **options)
                )
            except snapllm.InvalidRequestError:
                continue
            num_answered += 1
            assert whole.usage.num_generated_tokens > 0
            assert isinstance(events[-1], snapllm.Finish)
        assert num_answered >= 3
        assert model.chat("Hello", max_tokens=2).usage.num_generated_tokens > 0


ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds",
        "parameters": {
            "type": "object",
            "properties": {
                "number": {"type": "integer", "description": "Of it", "minimum": 0, "maximum": 9},
                "twice": {"type": "boolean", "description": "Or once"},
            },
            "required": ["number", "twice"],
            "additionalProperties": False,
        },
    },
}


def streamed_calls(events: Iterable[Any]) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, snapllm.ToolCallStart):
            calls.append((event.name, ""))
        elif isinstance(event, snapllm.ToolCallDelta):
            name, arguments = calls[event.index]
            calls[event.index] = name, arguments + event.arguments
    return calls


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_call_that_is_required_is_made_in_every_family(llama_path: Path, template: Path) -> None:
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(llama_path, "m", chat_template=template.read_text(), context_size=8192)
        for choice in ("required", "get_weather"):
            options: dict[str, Any] = {
                "tools": [ADD, TOOL],
                "tool_choice": choice,
                "parallel_tool_calls": False,
                "thinking": False,
                "max_tokens": 60,
                "temperature": 0,
            }
            answer = model.chat("What is the weather in Paris?", **options)
            assert not answer.content
            # Many formats have long markup, and some reason whatever they are told.
            if answer.finish_reason == "length":
                continue
            assert [call.name for call in answer.tool_calls] in (["add"], ["get_weather"])
            if choice != "required":
                assert answer.tool_calls[0].name == choice
            json.loads(answer.tool_calls[0].arguments)


@pytest.mark.parametrize("name", ["GLM-4.6", "GLM-4.7-Flash", "Spark2.5"])
def test_a_call_with_blanks_before_its_end_is_one(name: str) -> None:
    template = FOLDER / f"{name}.jinja"
    if not template.exists():
        pytest.skip("this checkout has no upstream sources")
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(demo_model_path(), "m", chat_template=template.read_text())
        for blank in ("\n", " "):
            options: dict[str, Any] = {
                "tools": [ADD],
                "tool_choice": "required",
                "parallel_tool_calls": False,
                "thinking": False,
                "max_tokens": 200,
                "temperature": 0,
                # Wherever the format allows one.
                "logit_bias": {model.tokenize(blank)[-1]: 60},
            }
            answer = model.chat("Add 7", **options)
            assert (answer.content, answer.finish_reason) == ("", "tool_calls")
            (call,) = answer.tool_calls
            assert set(json.loads(call.arguments)) == {"number", "twice"}
            events = model.chat("Add 7", stream=True, **options)
            assert streamed_calls(events) == [("add", call.arguments)]


@pytest.mark.parametrize("name", ["HuggingFaceTB-SmolLM3-3B", "microsoft-Phi-3.5-mini-instruct"])
def test_a_template_that_knows_no_calls_has_those_that_are_required(name: str) -> None:
    template = FOLDER / f"{name}.jinja"
    if not template.exists():
        pytest.skip("this checkout has no upstream sources")
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(demo_model_path(), "m", chat_template=template.read_text())
        options: dict[str, Any] = {
            "tools": [TOOL, ADD],
            "thinking": 8,
            "max_tokens": 200,
            "temperature": 0,
        }
        answer = model.chat("Add 7", tool_choice="add", **options)
        assert (answer.content, answer.finish_reason) == ("", "tool_calls")
        (call,) = answer.tool_calls
        assert call.name == "add" and set(json.loads(call.arguments)) == {"number", "twice"}
        events = model.chat("Add 7", tool_choice="add", stream=True, **options)
        assert streamed_calls(events) == [("add", call.arguments)]
        schema = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}
        said = model.chat("Add 7", json_schema=schema, **options)
        assert not said.tool_calls and "b" in json.loads(said.content)


@pytest.mark.parametrize("begin", ["<|im_end|>", "<|im_end|>\n<|im_start|>assistant\n"])
def test_a_template_that_begins_answers_with_what_ends_them_refuses_schemas_and_required_calls(
    llama_path: Path, begin: str
) -> None:
    template = (
        "{%- for message in messages %}<|im_start|>{{ message.role }} {{ message.content }}"
        "{%- endfor %}{%- if add_generation_prompt %}" + begin + "{%- endif %}"
    )
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(llama_path, "m", chat_template=template)
        for options in ({"json_schema": "{}"}, {"tools": [TOOL], "tool_choice": "required"}):
            with pytest.raises(snapllm.InvalidRequestError, match=r"<\|im_end\|>, which ends them"):
                model.chat("Hi", **options)
        assert model.chat("Hi", max_tokens=4, ignore_eos=True).usage.num_generated_tokens == 4


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_what_was_formatted_before_changes_no_answer(llama_path: Path, template: Path) -> None:
    """What a format keeps of one request must fit the next that has other messages."""

    def answer(model: snapllm.Model, messages: Any, options: dict[str, Any]) -> Any:
        try:
            result = model.chat(messages, temperature=0, max_tokens=12, **options)
        except snapllm.InvalidRequestError as error:
            return str(error)
        calls = [(call.name, call.arguments) for call in result.tool_calls]
        return result.content, result.reasoning, calls, result.usage.num_prompt_tokens

    text = template.read_text()
    with snapllm.Engine(num_threads=1) as engine:
        used = engine.load(llama_path, "used", chat_template=text, context_size=8192)
        for number, request in enumerate(REQUESTS):
            options = dict(request)
            messages = options.pop("messages")
            for other in (
                "Other words",
                [{"role": "system", "content": "Be brief."}, *HISTORY[1:2]],
            ):
                answer(used, other, options)
            fresh = engine.load(llama_path, f"{number}", chat_template=text, context_size=8192)
            assert answer(used, messages, options) == answer(fresh, messages, options)
            engine.unload(f"{number}")


UNTYPED: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Books a room",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "nights": {"type": ["integer", "null"]},
                "kind": {"const": "room"},
                "size": {"enum": ["small", "large"]},
                "guest": {"$ref": "#/$defs/Guest"},
                "notes": {},
            },
            "required": ["kind"],
            "$defs": {"Guest": {"type": "string", "minLength": 1}},
        },
    },
}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_tool_whose_properties_have_no_plain_type_can_be_shown(
    llama_path: Path, template: Path
) -> None:
    """As pydantic writes them; some templates ask each property for a type of one word."""
    with snapllm.Engine(num_threads=1) as engine:
        text = template.read_text()
        model = engine.load(llama_path, "m", chat_template=text, context_size=8192)
        model.chat("Book a room", tools=[TOOL, UNTYPED], max_tokens=1)


def test_a_chat_that_the_template_refuses_is_refused_in_plain_words(llama_path: Path) -> None:
    template = (
        "{%- for message in messages %}"
        "{%- if message.content == 'no' %}{{ raise_exception('roles must alternate') }}{%- endif %}"
        "{{ message.content }}{%- endfor %}"
        "{%- if tools %}{{ tools[0].kind in ('a', 'b') }}{%- endif %}"
    )
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(llama_path, "m", chat_template=template)
        with pytest.raises(snapllm.InvalidRequestError) as refused:
            model.chat("no")
        beginning = "the model's chat template does not take this chat: "
        assert str(refused.value) == beginning + "roles must alternate"
        with pytest.raises(snapllm.InvalidRequestError) as failed:
            model.chat("Hi", tools=[TOOL])
        assert re.fullmatch(beginning + r"[^\n]+ \(\w+ at line 1, column \d+\)", str(failed.value))


def test_a_server_takes_a_model_whose_template_refuses_what_it_is_warmed_up_with(
    llama_path: Path,
) -> None:
    template = (
        "{% if messages[-1].content == 'x' %}{{ raise_exception('too short') }}{% endif %}"
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    with snapllm.Engine() as engine:
        engine.load(llama_path, "m", chat_template=template)
        with pytest.raises(snapllm.InvalidRequestError, match="too short"):
            engine.model("m").chat([{"role": "user", "content": "x"}], max_tokens=1)
        warm_up(engine, "m")
        warm_up(engine, "nobody")
