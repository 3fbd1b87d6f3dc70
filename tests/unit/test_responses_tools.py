"""The tools of OpenAI's Responses API: namespaces, and what only OpenAI can run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snapllm.conversation import render_messages
from snapllm.errors import InvalidRequestError
from snapllm.outputs import Finish, ToolCallDelta, ToolCallStart
from snapllm.protocol import responses
from snapllm.protocol.responses_answers import ResponseStream
from snapllm.protocol.responses_items import input_to_keep

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}
AGENTS = {
    "type": "namespace",
    "name": "agents",
    "description": "Other agents",
    "tools": [LOOK, {"type": "custom", "name": "tell"}],
}
SEARCH = {"type": "web_search", "external_web_access": False}


def parse(**fields: Any) -> responses.Parsed:
    return responses.parse(json.dumps({"model": "m", "input": "Hi"} | fields).encode())


def offered(**fields: Any) -> list[str]:
    return [tool.function.name for tool in parse(**fields).request.tools]


def refused(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    return caught.value


def test_tools_of_a_namespace_are_offered_beside_others_of_the_same_name() -> None:
    assert offered(tools=[LOOK, AGENTS]) == ["look", "agents__look", "agents__tell"]


def test_a_call_comes_back_with_its_namespace() -> None:
    parsed = parse(tools=[LOOK, AGENTS])
    builder = ResponseStream(parsed.wire, parsed.tools)
    events = [
        *(ToolCallStart(0, "1", "agents__look"), ToolCallDelta(0, "{}")),
        *(ToolCallStart(1, "2", "look"), ToolCallDelta(1, "{}")),
        *(ToolCallStart(2, "3", "agents__tell"), ToolCallDelta(2, '{"input":"x"}')),
        Finish(finish_reason="tool_calls"),
    ]
    for event in events:
        list(builder.events(event))
    called = [
        (item["type"], item["name"], item.get("namespace")) for item in builder.response["output"]
    ]
    assert called == [
        ("function_call", "look", "agents"),
        ("function_call", "look", None),
        ("custom_tool_call", "tell", "agents"),
    ]
    again = parse(tools=[LOOK, AGENTS], input=builder.response["output"]).request.messages
    [turn] = json.loads(render_messages(again, lambda *_: ""))
    names = [call["function"]["name"] for call in turn["tool_calls"]]
    assert names == ["agents__look", "look", "agents__tell"]


@pytest.mark.parametrize(
    "kind",
    [
        *("web_search", "web_search_preview", "web_search_preview_2025_03_11", "file_search"),
        *("code_interpreter", "image_generation", "mcp", "tool_search"),
    ],
)
def test_tools_that_only_openai_runs_are_left_out_unless_one_must_be_called(kind: str) -> None:
    tools = [LOOK, {"type": kind}]
    assert offered(tools=tools) == ["look"]
    assert refused(tools=tools, tool_choice={"type": kind}).param == "tool_choice.type"
    assert refused(tools=[{"type": kind}], tool_choice="required").param == "tool_choice"
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": kind}]}
    assert offered(tools=tools, tool_choice=allowed) == []


def test_tools_that_the_client_would_have_to_run_are_refused() -> None:
    assert refused(tools=[LOOK, {"type": "local_shell"}]).param == "tools[1].type"
    assert refused(tools=[AGENTS | {"tools": [SEARCH]}]).param == "tools[0].tools[0].type"


def test_a_tool_is_chosen_by_its_own_name_or_with_its_namespace() -> None:
    tools = [LOOK, AGENTS]
    named = {"type": "function", "name": "look"}
    assert offered(tools=tools, tool_choice=named) == ["look", "agents__look"]
    assert offered(tools=tools, tool_choice=named | {"namespace": "agents"}) == ["agents__look"]
    assert offered(tools=tools, tool_choice={"type": "custom", "name": "tell"}) == ["agents__tell"]
    whole = {"type": "allowed_tools", "tools": [{"type": "namespace", "name": "agents"}]}
    assert offered(tools=tools, tool_choice=whole) == ["agents__look", "agents__tell"]
    assert refused(tools=tools, tool_choice={"type": "custom", "name": "x"}).param == "tool_choice"


def test_a_name_that_is_wrong_is_named_where_it_stands() -> None:
    assert refused(tools=[LOOK, LOOK]).param == "tools[1].name"
    assert refused(tools=[AGENTS, AGENTS]).param == "tools[1].tools[0].name"
    assert refused(tools=[{"type": "namespace"}]).param == "tools[0].name"
    nameless = AGENTS | {"tools": [{"type": "function"}]}
    assert refused(tools=[nameless]).param == "tools[0].tools[0].name"
    assert refused(tools=[{"type": "function", "name": 5}]).param == "tools[0].name"


def test_the_answer_repeats_the_tools_as_they_were_given() -> None:
    parsed = parse(tools=[LOOK, AGENTS, SEARCH])
    said = ResponseStream(parsed.wire, parsed.tools).response["tools"]
    assert said[0] == {"description": None, "strict": None, **LOOK}
    assert said[1:] == [AGENTS, SEARCH]


def test_items_of_the_conversation_offer_more_tools() -> None:
    added = {"type": "additional_tools", "role": "developer", "tools": [AGENTS, SEARCH]}
    hello = {"role": "user", "content": "Hi"}
    parsed = parse(tools=[LOOK], input=[added, hello, added])
    assert [tool.shown_name for tool in parsed.tools] == ["look", "agents__look", "agents__tell"]
    assert len(parsed.request.messages) == 1
    assert ResponseStream(parsed.wire, parsed.tools).response["tools"][0]["name"] == "look"
    changed = {"type": "additional_tools", "tools": [LOOK | {"description": "Anew"}]}
    [tool] = parse(tools=[LOOK], input=[hello, changed]).request.tools
    assert tool.function.description == "Anew"
    unnamed = parse(input=[changed, hello]).conversation
    for conversation, tools in (
        (parsed.conversation, [AGENTS, SEARCH]),
        (unnamed, changed["tools"]),
    ):
        kept = json.loads(input_to_keep(conversation)[0].data)
        assert (kept["role"], kept["tools"]) == ("developer", tools)
    broken = {"type": "additional_tools", "tools": [{"type": "local_shell"}]}
    assert refused(input=[hello, broken]).param == "input[1].tools[0].type"
