"""What is refused names the argument at fault."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

import snapllm
from snapllm.errors import ContextNotFoundError, ModelNotFoundError, from_status
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


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        ("/v1/chat/completions", "model"),
        ("/v1/models/{model_id}", "model_id"),
        ("/api/v1/generate", "model"),
        ("/api/v1/models/switch", "model_id"),
        ("/api/v1/models/{model_id}", "model_id"),
        ("/api/v1/contexts/ingest", "model_id"),
        ("/api/v1/contexts/{context_id}/query", "context_id"),
    ],
)
def test_what_is_not_there_is_named_as_the_endpoint_calls_it(endpoint: str, field: str) -> None:
    for missing in (ModelNotFoundError("no"), ContextNotFoundError("no")):
        assert api_error(missing, endpoint).param == field
        assert api_error(missing).param is None
    assert api_error(ModelNotFoundError("no", param="other"), endpoint).param == "other"


def test_a_context_has_its_models_field_named_as_it_is_there() -> None:
    error = from_status("invalid_request", "model a is an embedding model: it cannot generate text")
    assert api_error(error, "/v1/chat/completions").param == "model"
    assert api_error(error, "/api/v1/contexts/ingest").param == "model_id"


@pytest.mark.parametrize(
    ("message", "filename", "number"),
    [
        ("Model file not found: /m/a.gguf", "/m/a.gguf", errno.ENOENT),
        ("Model file not found: /m/a (1)", "/m/a (1)", errno.ENOENT),
        ("Model file not found: /m/a (1) (Permission denied)", "/m/a (1)", errno.EACCES),
        ("the model of another file is damaged", None, None),
    ],
)
def test_a_missing_file_is_named_as_in_pythons_own_errors(
    message: str, filename: str | None, number: int | None
) -> None:
    error = from_status("file_not_found", message)
    assert isinstance(error, FileNotFoundError)
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (str(each), each.filename, each.errno) == (message, filename, number)


@pytest.mark.parametrize("load", ["load", "load_diffusion"])
def test_a_load_of_a_missing_file_says_which(
    engine: snapllm.Engine, load: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        getattr(engine, load)(tmp_path / "no.gguf")
    assert (caught.value.filename, caught.value.errno) == (str(tmp_path / "no.gguf"), errno.ENOENT)
