"""What is refused names the argument at fault."""

from __future__ import annotations

import pytest

from snapllm.errors import from_status
from snapllm.protocol.error_codes import api_error


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("kv_cells must be 0 to 16777216", "kv_cells"),
        ("model_id a b is taken by /models/a.gguf", "model_id"),
        ("model_id a is loaded with other options: unload it first", "model_id"),
        ("model a is an embedding model: it cannot generate text", "model"),
        ("model a has a pooling of its own; leave it at auto", "pooling"),
        ("the prompt is empty", "prompt"),
        ("prompt is too long: 900 tokens > 511 maximum.", "prompt"),
        ("input 3 has 99 tokens, but model a embeds at most 64 together", "input"),
        ("input 0: token 7 is not in the model's vocabulary", "input"),
        ("token 7 is not in the model's vocabulary", "prompt"),
        ("not a kind of KV: x", None),
    ],
)
def test_a_refusal_of_the_core_names_the_argument(message: str, param: str | None) -> None:
    assert from_status("invalid_request", message).param == param
    assert from_status("out_of_memory", message).param is None


def test_a_context_has_its_models_field_named_as_it_is_there() -> None:
    error = from_status("invalid_request", "model a is an embedding model: it cannot generate text")
    assert api_error(error, "/v1/chat/completions").param == "model"
    assert api_error(error, "/api/v1/contexts/ingest").param == "model_id"
