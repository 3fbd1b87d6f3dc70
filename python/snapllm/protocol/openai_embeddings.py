"""OpenAI's embeddings: requests in, vectors out.

Reference: OpenAI API, "Create embeddings". `pooling` is an extension.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from snapllm._requests import embedding_request
from snapllm.errors import InvalidRequestError
from snapllm.params import EmbeddingRequest, ModelName
from snapllm.protocol.decoding import decode_body

if TYPE_CHECKING:
    from snapllm.protocol.openai_answer_types import Embedding, EmbeddingsAnswer, EmbeddingsUsage


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """The body of POST /v1/embeddings. Fields not listed are ignored."""

    model: ModelName
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    pooling: str | None = None


_decoder = msgspec.json.Decoder(EmbeddingsRequest)


class Parsed(msgspec.Struct, frozen=True):
    """A request and how its answer is to be written."""

    request: EmbeddingRequest
    as_base64: bool


def parse_embeddings(body: bytes) -> Parsed:
    """Reads the body of POST /v1/embeddings.

    Raises:
        InvalidRequestError: The body does not fit; `param` names the field at fault.
    """
    wire = decode_body(body, _decoder)
    inputs: Any = wire.input
    if isinstance(inputs, list) and len({type(item) for item in inputs}) > 1:
        raise InvalidRequestError("input mixes texts and tokens", param="input")
    request = embedding_request(
        wire.model,
        inputs,
        pooling=wire.pooling,
        dimensions=wire.dimensions,
        field="input",
    )
    return Parsed(request, wire.encoding_format == "base64")


def embeddings_object(
    model: str, vectors: Sequence[bytes], num_tokens: int, *, as_base64: bool
) -> bytes:
    """The body of the answer; `vectors` are little-endian 32-bit floats."""

    def value(vector: bytes) -> str | list[float]:
        if as_base64:
            return base64.b64encode(vector).decode()
        return array("f", vector).tolist()

    data: list[Embedding] = [
        {"object": "embedding", "index": index, "embedding": value(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage: EmbeddingsUsage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    body: EmbeddingsAnswer = {"object": "list", "data": data, "model": model, "usage": usage}
    return msgspec.json.encode(body)
