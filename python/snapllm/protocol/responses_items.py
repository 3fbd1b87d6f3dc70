"""The items of OpenAI's Responses API that outlive a request.

Reference: OpenAI API, "Create a model response" (`previous_response_id`, item references)
and "List input items".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from snapllm._checks import convert
from snapllm.errors import InvalidRequestError, NotFoundError, PreviousResponseNotFoundError
from snapllm.protocol.responses_types import (
    ADDITIONAL_TOOLS,
    MAX_ITEMS,
    InputItem,
    InputTokensRequest,
)

if TYPE_CHECKING:
    from snapllm.protocol.responses_answer_types import DeletedResponse

_encode = msgspec.json.encode
_decoder = msgspec.json.Decoder(InputItem)

ID_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


class KeptItem(NamedTuple):
    """An item that is kept, as the JSON of its listing."""

    id: str
    data: bytes


class KeptResponses(Protocol):
    """The answers that a client may refer to."""

    def conversation(self, response_id: str) -> Sequence[KeptItem] | None:
        """The items of an answer's input, then of the answer; None = it is not kept."""

    def item(self, item_id: str) -> KeptItem | None:
        """An item of any of them; None = it is not kept."""


class NothingKept:
    """There are none."""

    def conversation(self, response_id: str) -> Sequence[KeptItem] | None:
        return None

    def item(self, item_id: str) -> KeptItem | None:
        return None


class Conversation(NamedTuple):
    """The items of a request: those that its client sent, and those before them."""

    kept_before: Sequence[KeptItem]
    before: Sequence[InputItem]
    own: Sequence[InputItem]


def resolve(wire: InputTokensRequest, kept: KeptResponses) -> Conversation:
    """Finds what a request refers to.

    Raises:
        InvalidRequestError: The input is empty.
        PreviousResponseNotFoundError: The response that it goes on from is not kept.
        NotFoundError: An item is not kept.
    """
    before: Sequence[KeptItem] = ()
    if wire.previous_response_id:
        found = kept.conversation(wire.previous_response_id)
        if found is None:
            raise PreviousResponseNotFoundError(
                f"Previous response with id {wire.previous_response_id!r} not found: it was not "
                "stored, or is no longer kept",
                param="previous_response_id",
            )
        before = found
        if len(before) + (len(wire.input) if isinstance(wire.input, list) else 1) > MAX_ITEMS:
            raise InvalidRequestError(
                f"with what comes before it the input has more than {MAX_ITEMS} items",
                param="input",
            )
    if isinstance(wire.input, str):
        own = [InputItem("message", role="user", content=wire.input)]
    elif wire.input or (wire.input is None and (before or wire.instructions)):
        own = [_resolved(item, kept, f"input[{i}]") for i, item in enumerate(wire.input or ())]
    else:
        raise InvalidRequestError("input must not be empty", param="input")
    return Conversation(before, [_decoder.decode(item.data) for item in before], own)


def _resolved(item: InputItem, kept: KeptResponses, where: str) -> InputItem:
    if item.kind != "item_reference":
        return item
    found = kept.item(item.id or "")
    if found is None:
        raise NotFoundError(
            f"{where}: item with id {item.id!r} not found: it was not stored, or is no longer kept",
            param=where,
        )
    return _decoder.decode(found.data)


def placed_items(
    instructions: str | list[InputItem] | None, conversation: Conversation
) -> Iterator[tuple[str, InputItem]]:
    """All items that the model is to know of, each with its place, for errors."""
    for field, items in (
        ("instructions", instructions if isinstance(instructions, list) else ()),
        ("previous_response_id", conversation.before),
        ("input", conversation.own),
    ):
        for i, item in enumerate(items):
            yield f"{field}[{i}]", item


def input_to_keep(conversation: Conversation) -> list[KeptItem]:
    """All items of a request's input, as they are listed later."""
    items = list(conversation.kept_before)
    for item in conversation.own:
        items.append(_listed(item, len(items)))
    return items


def output_to_keep(output: Sequence[Mapping[str, Any]]) -> list[KeptItem]:
    """The items of an answer."""
    return [KeptItem(item["id"], _encode(item)) for item in output]


def _listed(item: InputItem, position: int) -> KeptItem:
    """The item in full: with an id, and a text as the part that it is."""
    status = None if item.kind == "reasoning" else item.status or "completed"
    content: Any = item.content
    if isinstance(content, str):
        is_output = item.role == "assistant"
        part = {"type": "output_text" if is_output else "input_text", "text": content}
        content = [part | ({"annotations": []} if is_output else {})]
    content = _with_details(content)
    role = item.role or ("developer" if item.kind == ADDITIONAL_TOOLS else None)
    output = _with_details(item.output)
    full = msgspec.structs.replace(
        item, type=item.kind, status=status, content=content, role=role, output=output
    )
    if full.id is None:
        # Of what it holds and where it stands: a history that is sent again is kept once.
        digest = hashlib.sha256(b"%d %s" % (position, _encode(full))).hexdigest()[:48]
        prefix = ID_PREFIXES.get(item.kind, "item")  # of tools that run elsewhere
        full = msgspec.structs.replace(full, id=f"{prefix}_{digest}")
    return KeptItem(full.id or "", _encode(full))


def _with_details(content: Any) -> Any:
    """The content, whose images say how they were looked at, as clients' types want it."""
    if not isinstance(content, list):
        return content
    return [
        {**part, "detail": part.get("detail") or "auto"}
        if part.get("type") == "input_image"
        else part
        for part in content
    ]


class RetrieveQuery(msgspec.Struct, frozen=True):
    """The query of GET /v1/responses/{id}."""

    stream: Annotated[bool, Meta(description="`true` is refused: what is kept comes whole.")] = (
        False
    )


def read_retrieve_query(query: Mapping[str, str]) -> RetrieveQuery:
    """Reads the query of GET /v1/responses/{id}.

    Raises:
        InvalidRequestError: A parameter does not fit; `param` names it.
    """
    read = convert(dict(query), RetrieveQuery, strict=False)
    if read.stream:
        raise InvalidRequestError("stream: an answer that is kept comes whole", param="stream")
    return read


class ListQuery(msgspec.Struct, frozen=True):
    """What of a list of items is asked for."""

    limit: Annotated[int, Meta(ge=1, le=100, description="Items of the page at most.")] = 20
    order: Literal["asc", "desc"] = "desc"
    after: Annotated[str | None, Meta(description="The item that the page follows.")] = None


def read_list_query(query: Mapping[str, str]) -> ListQuery:
    """Reads the query of GET /v1/responses/{id}/input_items.

    Raises:
        InvalidRequestError: A parameter does not fit; `param` names it.
    """
    return convert(dict(query), ListQuery, strict=False)


def list_object(items: Sequence[KeptItem], query: ListQuery) -> bytes:
    """The body of GET /v1/responses/{id}/input_items.

    Raises:
        InvalidRequestError: `after` is none of the items.
    """
    ordered = list(items) if query.order == "asc" else list(reversed(items))
    if query.after is not None:
        position = next((i for i, item in enumerate(ordered) if item.id == query.after), None)
        if position is None:
            raise InvalidRequestError(f"after: no item {query.after!r} is listed", param="after")
        ordered = ordered[position + 1 :]
    page = ordered[: query.limit]
    return _encode(
        {
            "object": "list",
            "data": [msgspec.Raw(item.data) for item in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(ordered) > len(page),
        }
    )


def deleted_object(response_id: str) -> bytes:
    """The body of DELETE /v1/responses/{id}."""
    body: DeletedResponse = {"id": response_id, "object": "response", "deleted": True}
    return _encode(body)
