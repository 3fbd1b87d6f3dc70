"""Embeddings over HTTP: the official client, and raw requests."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest
from server_process import Server

TEXTS = ["The cat sat on the mat.", "Something else."]


def test_the_client_reads_what_it_asks_for(client: openai.OpenAI, server: Server) -> None:
    # The client asks for base64 by itself and decodes it.
    answer = client.embeddings.create(model="llama", input=TEXTS)
    assert [item.index for item in answer.data] == [0, 1]
    plain = client.embeddings.create(model="llama", input=TEXTS, encoding_format="float")
    for mine, theirs in zip(answer.data, plain.data, strict=True):
        assert mine.embedding == pytest.approx(theirs.embedding, abs=1e-7)
        assert math.isclose(sum(value**2 for value in mine.embedding), 1, abs_tol=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 20
    cut = client.embeddings.create(model="llama", input=TEXTS[0], dimensions=4)
    assert len(cut.data[0].embedding) == 4
    body = {"model": "llama", "input": TEXTS[0], "encoding_format": "base64"}
    assert isinstance(server.post("/v1/embeddings", body)["data"][0]["embedding"], str)


def test_tokens_are_embedded(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="llama", input=[1, 2, 3])
    several = client.embeddings.create(model="llama", input=[[1, 2, 3], [4]])
    assert one.usage.prompt_tokens == 3
    assert several.usage.prompt_tokens == 4
    assert several.data[0].embedding == pytest.approx(one.data[0].embedding, abs=2e-3)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "nobody"}, 404, "model"),
        ({"input": []}, 400, "input"),
        ({"input": ""}, 400, "input[0]"),
        ({"input": ["a", 1]}, 400, "input"),
        ({"input": {"a": 1}}, 400, "input"),
        ({"dimensions": 0}, 400, "dimensions"),
        ({"dimensions": 100_000}, 400, "dimensions"),
        ({"encoding_format": "int8"}, 400, "encoding_format"),
        ({"input": "word " * 20_000}, 400, "input"),
    ],
)
def test_bad_requests_are_refused(
    server: Server, fields: dict[str, Any], status: int, param: str | None
) -> None:
    body = {"model": "llama", "input": "a"} | fields
    found, answer, _ = server.request("POST", "/v1/embeddings", body)
    assert found == status, answer
    assert answer["error"]["param"] == param
