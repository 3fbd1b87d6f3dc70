"""Blocks of Anthropic's messages that are shown to the model as text."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from anthropic_bodies import HELLO, parse

from snapllm._media import MediaLoader, MediaPolicy
from snapllm.errors import InvalidRequestError


def text_of(block: dict[str, Any]) -> str:
    [message] = parse(messages=[{"role": "user", "content": [block]}]).request.messages
    assert isinstance(message.content, list)
    [part] = message.content
    return part.text or ""


def test_search_results_and_documents_of_blocks_are_text() -> None:
    texts = [{"type": "text", "text": "20 days"}, {"type": "text", "text": "paid"}]
    found = {"type": "search_result", "title": "Leave", "source": "a.example", "content": texts}
    assert text_of(found) == "Leave\na.example\n20 days\npaid"
    for content in (texts, "20 days\npaid"):
        document = {"type": "document", "source": {"type": "content", "content": content}}
        assert text_of(document) == "20 days\npaid"
        named = document | {"title": "Leave", "context": "As of May"}
        assert text_of(named) == "Leave\nAs of May\n20 days\npaid"


def encoded(data: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "text/plain"}
    return {"type": "document", "source": source | {"data": base64.b64encode(data).decode()}}


def test_a_document_of_text_may_come_in_base64() -> None:
    assert text_of(encoded("20 days, größer".encode())) == "20 days, größer"
    assert text_of(encoded(b"20 days") | {"title": "Leave"}) == "Leave\n20 days"
    for data in (b"%PDF-1.7", b"\xff"):
        with pytest.raises(InvalidRequestError, match="only files of text") as caught:
            text_of(encoded(data))
        assert caught.value.param == "messages[0].content[0].source.data"


def test_refusals_of_images_and_documents_have_the_words_that_clients_look_for() -> None:
    """Claude Code leaves out what could not be processed, and asks again."""
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}
    pdf["source"] = {**pdf["source"], "data": base64.b64encode(b"%PDF-1.7").decode()}
    with pytest.raises(InvalidRequestError, match=r"^Could not process PDF: "):
        text_of(pdf)
    for source in ({"type": "file", "file_id": "file_1"}, {"type": "base64"}):
        with pytest.raises(InvalidRequestError, match=r"^Could not process image: ") as caught:
            text_of({"type": "image", "source": source})
        assert caught.value.param == "messages[0].content[0].source"

    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [IMAGE]}
    [message] = parse(messages=[{"role": "user", "content": [result]}]).request.messages
    assert isinstance(message.content, list)
    for takes_images, reason in ((False, "this model takes text only"), (True, "not an image in")):
        loader = MediaLoader(MediaPolicy(), takes_images=takes_images, takes_audio=False)
        with pytest.raises(InvalidRequestError, match=reason) as caught:
            loader.place(message.content[0], "content[0]")
        assert caught.value.message.startswith("Could not process image: ")
        assert caught.value.param == "messages[0].content[0].content[0].source"


IMAGE = {"type": "image", "source": {"type": "url", "url": "data:image/png;base64,AAAA"}}


def test_a_document_shows_its_images_in_their_places() -> None:
    pages = [{"type": "text", "text": "See:"}, IMAGE, {"type": "text", "text": "So."}]
    document = {
        "type": "document",
        "title": "Leave",
        "source": {"type": "content", "content": pages},
    }
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [document]}
    for block in (document, result):
        [message] = parse(messages=[{"role": "user", "content": [block]}]).request.messages
        assert isinstance(message.content, list)
        shown = [part.text or part.type for part in message.content]
        assert shown == ["Leave", "See:", "image_url", "So."]
    pages.append({"type": "odd"})
    with pytest.raises(InvalidRequestError) as caught:
        parse(messages=[{"role": "user", "content": [document]}])
    assert caught.value.param == "messages[0].content[0].source.content[3].type"


def test_searches_of_another_server_are_text_of_the_assistants_turn() -> None:
    asked = {
        "type": "server_tool_use",
        "id": "srvtoolu_1",
        "name": "web_search",
        "input": {"query": "leave"},
    }
    page = {
        "type": "web_search_result",
        "title": "Leave",
        "url": "a.example",
        "encrypted_content": "x",
    }
    failed = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    for content, found in (
        ([page, page], "Leave\na.example\nLeave\na.example"),
        (failed, "unavailable"),
    ):
        result = {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_1",
            "content": content,
        }
        turn = {"role": "assistant", "content": [asked, result, {"type": "text", "text": "b"}]}
        message = parse(messages=[*HELLO, turn, *HELLO]).request.messages[1]
        assert message.content == f'web_search: {{"query":"leave"}}\n{found}\nb'
        assert not message.tool_calls
        with pytest.raises(InvalidRequestError, match="not supported here"):
            parse(messages=[{"role": "user", "content": [result]}])


@pytest.mark.parametrize(
    ("block", "shown"),
    [
        ({"type": "fallback", "from": "a", "to": "b"}, ""),
        ({"type": "compaction", "content": "So far"}, "So far"),
        ({"type": "compaction", "content": None}, ""),
        (
            {
                "type": "tool_search_tool_result",
                "content": {
                    "type": "tool_search_tool_search_result",
                    "tool_references": [{"type": "tool_reference", "tool_name": "look"}],
                },
            },
            "look",
        ),
        (
            {
                "type": "web_fetch_tool_result",
                "content": {
                    "type": "web_fetch_result",
                    "url": "http://x",
                    "content": {
                        "type": "document",
                        "title": "X",
                        "source": {"type": "text", "media_type": "text/plain", "data": "A page"},
                    },
                },
            },
            "http://x\nX\nA page",
        ),
        (
            {
                "type": "bash_code_execution_tool_result",
                "content": {
                    "type": "bash_code_execution_result",
                    "stdout": "out",
                    "stderr": "err",
                    "return_code": 0,
                    "content": [],
                },
            },
            "out\nerr",
        ),
        (
            {"type": "mcp_tool_result", "content": [{"type": "text", "text": "Found"}]},
            "Found",
        ),
    ],
)
def test_what_other_servers_tools_left_behind_is_shown(block: dict[str, Any], shown: str) -> None:
    said = [block, {"type": "text", "text": "Done"}]
    turn = parse(
        messages=[*HELLO, {"role": "assistant", "content": said}, *HELLO]
    ).request.messages[1]
    assert turn.content == "\n".join(filter(None, [shown, "Done"]))


def test_a_tool_that_a_search_found_is_named_to_the_model() -> None:
    found = [{"type": "tool_reference", "tool_name": "look"}]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": found}
    [message] = parse(messages=[{"role": "user", "content": [result]}]).request.messages
    assert message.role == "tool" and "look" in str(message.content)
