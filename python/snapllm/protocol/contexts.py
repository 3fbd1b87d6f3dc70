"""The Context API: requests in.

The answers are in `context_answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from snapllm._checks import convert
from snapllm.contexts.manager import DEFAULT_TTL_SECONDS
from snapllm.contexts.record import MAX_TTL_SECONDS, ContextName, TtlSeconds
from snapllm.contexts.views import Tier
from snapllm.conversation import ContentPart
from snapllm.params import (
    DEFAULT_MAX_TOKENS,
    ChatOptions,
    MaxTokens,
    MinP,
    ModelName,
    ModelNameOrNone,
    Seed,
    StopList,
    StopSequence,
    Temperature,
    TopK,
    TopP,
)
from snapllm.protocol.decoding import decode_body

_COLDER: dict[str, Tier] = {"hot": "warm", "warm": "cold", "cold": "cold"}
_TtlOrZero: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TTL_SECONDS)]
_WARMER: dict[str, Tier] = {"cold": "warm", "warm": "hot", "hot": "hot"}


class IngestRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/contexts/ingest."""

    content: Annotated[str, Meta(min_length=1)] | list[ContentPart]
    """The document, or its texts and pictures in their order (data URLs)."""
    model_id: ModelName
    name: ContextName | None = None
    ttl_seconds: TtlSeconds | None = DEFAULT_TTL_SECONDS
    stream: bool = False


class QueryRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/contexts/{id}/query."""

    query: Annotated[str, Meta(min_length=1)]
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS
    temperature: Temperature = 0.0
    top_p: TopP = 0.9
    top_k: TopK = 40
    min_p: MinP = 0.05
    seed: Seed = -1
    stop: StopSequence | StopList = []
    thinking: bool = False
    stream: bool = False

    def options(self) -> ChatOptions:
        """As keyword arguments of a chat."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "seed": self.seed,
            "stop": self.stop,
            "thinking": self.thinking,
        }


class TierRequest(msgspec.Struct):
    """The body of POST /api/v1/contexts/{id}/promote and /demote."""

    tier: Tier | None = None


class AppendRequest(msgspec.Struct):
    """The body of POST /api/v1/contexts/{id}/append."""

    content: Annotated[str, Meta(min_length=1)]


class ForkRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/contexts/{id}/fork."""

    name: ContextName | None = None
    ttl_seconds: TtlSeconds | None = DEFAULT_TTL_SECONDS


class ImportQuery(msgspec.Struct, kw_only=True):
    """The query of POST /api/v1/contexts/import, whose body is the file."""

    model_id: Annotated[
        ModelNameOrNone, Meta(description="The model to use it with; empty = as before.")
    ] = ""
    name: Annotated[ContextName | None, Meta(description="As before by default.")] = None
    ttl_seconds: Annotated[_TtlOrZero | None, Meta(description="0 = for ever.")] = (
        DEFAULT_TTL_SECONDS
    )


class ContextFilters(msgspec.Struct, frozen=True):
    """The query of GET /api/v1/contexts: which are listed."""

    tier: Annotated[Tier | None, Meta(description="Only those of this tier.")] = None
    model_id: Annotated[str | None, Meta(description="Only those of this model.")] = None


_ingest_decoder = msgspec.json.Decoder(IngestRequest)
_query_decoder = msgspec.json.Decoder(QueryRequest)
_tier_decoder = msgspec.json.Decoder(TierRequest)
_append_decoder = msgspec.json.Decoder(AppendRequest)
_fork_decoder = msgspec.json.Decoder(ForkRequest)


def parse_ingest(body: bytes) -> IngestRequest:
    """Reads an ingest request."""
    return decode_body(body, _ingest_decoder)


def parse_query(body: bytes) -> QueryRequest:
    """Reads a question."""
    return decode_body(body, _query_decoder)


def parse_append(body: bytes) -> AppendRequest:
    """Reads text to append."""
    return decode_body(body, _append_decoder)


def parse_fork(body: bytes) -> ForkRequest:
    """Reads a fork request; an empty body means the defaults."""
    return decode_body(body or b"{}", _fork_decoder)


def parse_tier(body: bytes, current: str | None, *, promote: bool) -> Tier:
    """Reads where to move a context; without a tier, one step up or down."""
    tier = decode_body(body or b"{}", _tier_decoder).tier
    return tier or (_WARMER if promote else _COLDER)[current or "cold"]


def parse_import(query: Mapping[str, str]) -> ImportQuery:
    """Reads the query of an import; what is empty is not given, and a ttl_seconds of 0 means for
    ever."""
    wanted = convert(_given(query), ImportQuery, strict=False)
    return msgspec.structs.replace(wanted, ttl_seconds=wanted.ttl_seconds or None)


def parse_filters(query: Mapping[str, str]) -> ContextFilters:
    """Reads the query of the list; empty filters are none."""
    return convert(_given(query), ContextFilters, strict=False)


def _given(query: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in query.items() if value}
