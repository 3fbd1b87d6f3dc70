"""Request bodies that are no JSON, or nested too deep."""

from __future__ import annotations

import time
from typing import Literal

import msgspec
import pytest

from snapllm.errors import InvalidRequestError
from snapllm.protocol.decoding import MAX_JSON_DEPTH, decode_body


class Part(msgspec.Struct):
    kind: Literal["a", "b"] | None = None


class Body(msgspec.Struct):
    model: str
    stop: list[str] = []
    seconds: int | None = 5
    tier: Literal["hot", "cold"] | None = None
    parts: list[Part] = []
    named: dict[str, Part] = {}


DECODER = msgspec.json.Decoder(Body)


def test_a_byte_order_mark_before_the_body_is_passed_over() -> None:
    assert decode_body(b'\xef\xbb\xbf{"model": "m"}', DECODER).model == "m"
    with pytest.raises(InvalidRequestError, match="empty"):
        decode_body(b"\xef\xbb\xbf", DECODER)


@pytest.mark.parametrize(
    ("body", "position"), [(b'{"model": "\xff"}', 11), (b'{"model":"m","stop":["ok","\xc3("]}', 27)]
)
def test_a_byte_that_is_no_utf8_is_found_in_the_body(body: bytes, position: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"0x.. in position {position}:"):
        decode_body(body, DECODER)


@pytest.mark.parametrize("body", [b'{"\xff": 1}', b'{"\xff": null, "model": null}'])
def test_a_name_that_is_no_utf8_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode_body(body, DECODER)
    assert caught.value.param == "model"


def test_a_whole_number_may_have_a_fraction_of_zero() -> None:
    """As JSON Schema has it, and Python's clients write what they computed."""
    body = decode_body(b'{"model": "5.0", "seconds": 60.0, "stop": null}', DECODER)
    assert body == Body("5.0", [], 60)
    assert decode_body(b'{"stop": null, "model": "m", "seconds": 60.0}', DECODER).seconds == 60
    for wrong in (b"60.5", b"1e300", b"6e999"):
        with pytest.raises(InvalidRequestError) as caught:
            decode_body(b'{"model": "m", "seconds": %s}' % wrong, DECODER)
        assert caught.value.param in ("seconds", None)


def test_a_null_that_means_something_stays_beside_one_that_does_not() -> None:
    body = decode_body(b'{"stop": null, "model": "m", "seconds": null}', DECODER)
    assert body == Body("m", [], None)


def test_a_member_is_named_by_its_key() -> None:
    long = "k" * 1000
    for key, named in (("a", "named.a.kind"), ("$`x[...]", "named.$`x[...].kind")):
        members = {"fine": {}, key: {"kind": "c"}, "later": 5}
        body = {"model": "m", "named": members}
        with pytest.raises(InvalidRequestError, match="Invalid enum value") as caught:
            decode_body(msgspec.json.encode(body), DECODER)
        assert caught.value.param == named and named in caught.value.message
    with pytest.raises(InvalidRequestError) as caught:
        decode_body(msgspec.json.encode({"model": "m", "named": {long: 5}}), DECODER)
    assert len(caught.value.message) < 200 and (caught.value.param or "").startswith("named.kkk")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"stop": null, "model": null}', "model: Expected"),
        (b'{"stop": null, "model": 5}', "model: Expected"),
        (b'{"stop": [null], "model": "m"}', "stop.0.: Expected"),
        (b'{"stop": null}', "missing required field"),
    ],
)
def test_a_fault_beside_a_null_is_the_one_that_is_named(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        decode_body(body, DECODER)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('"tier": "HOT"', "tier: Invalid enum value 'HOT': it may be 'cold', 'hot'"),
        ('"parts": [{}, {"kind": "c"}]', r"parts.1..kind: .*: it may be 'a', 'b'"),
        ('"named": {"x": {"kind": ""}}', r"kind: .*: it may be 'a', 'b'"),
    ],
)
def test_a_word_that_is_none_of_a_few_is_refused_with_those(fields: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        decode_body(f'{{"model": "m", {fields}}}'.encode(), DECODER)


@pytest.mark.parametrize(
    ("text", "half"),
    [("\\ud800", "ud800"), ("\\ud83d\\ude00 \\udc00!", "udc00"), ("\\\\\\uD83Dx", "uD83D")],
)
def test_half_of_a_surrogate_pair_is_named(text: str, half: str) -> None:
    body = f'{{"model": "{text}"}}'.encode()
    place = body.index(half.encode()) - 1
    with pytest.raises(InvalidRequestError, match=rf"\\{half} at byte {place} is half of a surrog"):
        decode_body(body, DECODER)


@pytest.mark.parametrize("body", [b'{"model": "\\ud83d', b'{"model": "\\\\ud800"', b'{"model": "a'])
def test_a_body_that_ends_too_soon_is_said_to(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="truncated"):
        decode_body(body, DECODER)


@pytest.mark.parametrize(
    "text", ["x", "[" * 200, '"' + "{" * 200, "\\", "[" * 200 + '\\"', "\\" * 3 + '"]}' * 200]
)
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('[{"]":', "}]")])
def test_only_brackets_outside_of_texts_nest(text: str, begin: str, end: str) -> None:
    level = begin.count("[") + begin.count("{")
    told = msgspec.json.encode(text).decode()
    siblings = "[[], {}]," * 100
    for depth, is_fine in ((MAX_JSON_DEPTH - 2, True), (MAX_JSON_DEPTH, False)):
        nested = begin * (depth // level) + told + end * (depth // level)
        body = f'{{"model": "m", "other": [{siblings} {told}, {nested}]}}'.encode()
        if is_fine:
            assert decode_body(body, DECODER).model == "m"
        else:
            with pytest.raises(InvalidRequestError, match="nested deeper than 100 levels"):
                decode_body(body, DECODER)


def test_the_nesting_of_a_large_body_is_found_at_once() -> None:
    """It is looked for on the event loop; byte by byte, this took half a second."""
    body = msgspec.json.encode({"model": "A" * (16 << 20), "tools": [{"a": {}}] * 100})
    started = time.thread_time()
    DECODER.decode(body)
    decoded = time.thread_time()
    decode_body(body, DECODER)
    assert time.thread_time() - decoded < 0.1 + 3 * (decoded - started)
