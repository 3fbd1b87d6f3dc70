"""Request bodies that are no JSON."""

from __future__ import annotations

import msgspec
import pytest

from snapllm.errors import InvalidRequestError
from snapllm.protocol.decoding import decode_body


class Body(msgspec.Struct):
    model: str
    stop: list[str] = []


DECODER = msgspec.json.Decoder(Body)


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
