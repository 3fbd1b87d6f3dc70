"""The page is what /openapi.json says, to read."""

from __future__ import annotations

import html
import re

from snapllm.protocol.openapi import docs_page, openapi_document

DOCUMENT = openapi_document()
PAGE = docs_page()


def part_of(title: str) -> str:
    """What the page says of an endpoint."""
    return PAGE.partition(f"<h2><code>{title}</code></h2>")[2].partition("<h2>")[0]


def test_each_type_is_defined_once_and_each_link_leads_to_one() -> None:
    defined = re.findall(r"<h3 id=(\w+)>", PAGE)
    assert sorted(defined) == sorted(DOCUMENT["components"]["schemas"])
    assert set(re.findall(r"href=#(\w+)", PAGE)) == set(defined)


def test_a_nested_type_is_a_link() -> None:
    chat = part_of("POST /v1/chat/completions")
    assert (
        "<code>messages</code><td>array of <a href=#ChatMessage>ChatMessage</a><td>required" in chat
    )


def test_the_parameters_of_a_query_are_shown() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            part = part_of(f"{method.upper()} {path}")
            query = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
            assert ("<h3>Query</h3>" in part) == bool(query)
            for each in query:
                assert f"<td><code>{each['name']}</code>" in part, (path, each["name"])
    items = part_of("GET /v1/responses/{response_id}/input_items")
    assert "<code>limit</code><td>integer<td><code>20</code>" in items


def test_what_clients_send_has_defaults_and_what_they_get_says_when_it_is_there() -> None:
    sent = part_of("POST /api/v1/generate")
    assert "<code>prompt</code><td>string<td>required" in sent
    assert "<code>top_k</code><td>integer | null<td><code>40</code>" in sent
    assert "<code>response</code><td>string<td>always" in sent
    assert "<code>reasoning</code><td>string<td>where it applies" in sent


def test_what_the_server_decides_is_said_in_place_of_a_default() -> None:
    chat = part_of("POST /v1/chat/completions")
    assert "<code>temperature</code><td>number | null<td><code>0.7</code>" in chat
    assert "<td>By default what the server's --default-max-tokens" in html.unescape(chat)
    assert "2147483647" not in PAGE
    assert "`" not in PAGE
