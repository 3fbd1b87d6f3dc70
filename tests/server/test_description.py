"""The server describes itself as it is."""

from __future__ import annotations

import re

from server_process import Server


def test_every_described_endpoint_is_there_and_every_endpoint_described(server: Server) -> None:
    document = server.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    described = {re.sub(r"\{\w+\}", "{}", path) for path in document["paths"]}
    routed = {
        re.sub(r"\{[^}]+\}", "{}", path)
        for path in server.get("/")["endpoints"]
        if path not in ("/", "/openapi.json", "/docs")
    }
    assert described == routed
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                name = schema["$ref"].rpartition("/")[2]
                assert document["components"]["schemas"][name]["properties"]


def test_the_docs_page_lists_the_endpoints(server: Server) -> None:
    status, page, headers = server.request("GET", "/docs")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/html")
    assert "/v1/chat/completions" in page
    assert "max_tokens" in page
    assert "://" not in page, "the page must not load anything from elsewhere"
