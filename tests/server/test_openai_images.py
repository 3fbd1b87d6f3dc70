"""Images for OpenAI's client: made and edited."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import numpy as np
import openai
import pytest
from pictures import PATH, SMALL, picture, png
from server_process import Server


def test_the_openai_client_makes_images(painter: Server) -> None:
    client = openai.OpenAI(base_url=painter.url + "/v1", api_key="x", max_retries=0)
    options: dict[str, Any] = {"model": "pix", "prompt": "a cat", "size": "64x64"}
    extra = {"steps": 3, "seed": 1}
    answer = client.images.generate(**options, n=2, response_format="b64_json", extra_body=extra)
    assert answer.data is not None and len(answer.data) == 2
    assert answer.quality is None, "the client's type has no 'auto'"
    expected = picture(painter.post(PATH, SMALL)["image"])
    assert np.array_equal(picture(answer.data[0].b64_json or ""), expected)
    linked = client.images.generate(**options, response_format="url", extra_body=extra)
    assert linked.data is not None
    header, _, data = (linked.data[0].url or "").partition(",")
    assert header == "data:image/png;base64"
    assert np.array_equal(picture(data), expected)
    events = list(
        client.images.generate(**options, stream=True, partial_images=1, extra_body=extra)
    )
    streamed = {**options, **extra, "stream": True, "partial_images": 1}
    status, _, _ = painter.request("POST", "/v1/images/generations", streamed)
    assert status == 200, "and its events are as described"
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert np.array_equal(picture(events[-1].b64_json), expected)
    few = client.images.generate(
        **options, stream=True, partial_images=3, extra_body=extra | {"steps": 2}
    )
    assert [getattr(event, "partial_image_index", "whole") for event in few] == [0, 1, "whole"]
    hints: dict[str, Any] = {"quality": "hd", "style": "vivid", "background": "opaque"}
    hinted = client.images.generate(
        **options, **hints, response_format="b64_json", extra_body=extra
    )
    assert hinted.data is not None
    assert np.array_equal(picture(hinted.data[0].b64_json or ""), expected)
    for wrong in (
        {"size": "65x64"},
        {"size": "big"},
        {"size": "\u0666\u0664x\u0666\u0664"},  # digits that are not ASCII's
        {"n": 0},
        {"quality": "best"},
        {"background": "transparent"},
        {"background": "red"},
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.generate(**(options | wrong))
        assert caught.value.param == next(iter(wrong))
    with pytest.raises(openai.NotFoundError):
        client.images.generate(**(options | {"model": "nobody"}))


def test_the_openai_client_edits_images(painter: Server) -> None:
    client = openai.OpenAI(base_url=painter.url + "/v1", api_key="x", max_retries=0)
    rng = np.random.default_rng(3)
    original = rng.integers(0, 256, (128, 64, 4), dtype=np.uint8)
    original[..., 3] = 255
    hole = original.copy()
    hole[32:96, 16:48, 3] = 0
    white = np.where(hole[..., 3] == 0, 255, 0).astype(np.uint8)
    options: dict[str, Any] = {"model": "pix", "prompt": "a cat"}
    extra = {"steps": 3, "seed": 1}
    native = SMALL | {"height": 128, "init_image": png(original), "strength": 0.75}
    painted_over = painter.post(PATH, native | {"mask": png(white)})["image"]

    def edited(image: np.ndarray, **more: Any) -> np.ndarray:
        file = ("a.png", base64.b64decode(png(image)), "image/png")
        answer = client.images.edit(image=file, **(options | more), extra_body=extra)
        assert answer.data is not None
        return picture(answer.data[0].b64_json or "")

    assert np.array_equal(edited(original), picture(painter.post(PATH, native)["image"]))
    for mask in (hole, white):
        file = ("m.png", base64.b64decode(png(mask)), "image/png")
        assert np.array_equal(edited(original, mask=file), picture(painted_over))
    assert np.array_equal(edited(original, mask=b""), edited(original)), "nobody chose a file"
    unset = client.images.edit(
        image=base64.b64decode(png(original)), **options, extra_body=extra | {"mask": ""}
    )
    assert unset.data is not None
    assert np.array_equal(picture(unset.data[0].b64_json or ""), edited(original))
    kept = edited(hole)
    assert kept.shape == (128, 64, 3)
    assert np.array_equal(kept[:32], original[:32, :, :3]), "what is not transparent stays"
    assert edited(original, size="64x64").shape == (64, 64, 3)
    small = base64.b64decode(png(original))
    events = list(
        client.images.edit(
            image=[small], **options, stream=True, partial_images=1, extra_body=extra
        )
    )
    assert [event.type for event in events] == [
        "image_edit.partial_image",
        "image_edit.completed",
    ]
    two = client.images.edit(image=small, **options, n=2, extra_body=extra | {"strength": 1})
    assert two.data is not None and len(two.data) == 2
    for wrong, param in (
        ({"image": [small, small]}, "image"),
        ({"image": b"no image"}, "image"),
        ({"mask": b"no image"}, "mask"),
        ({"size": "65x64"}, "size"),
        ({"n": 0}, "n"),
        ({"extra_body": {"strength": "much"}}, "strength"),
        ({"extra_body": {"prompt": ""}}, "prompt"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.edit(**({"image": small} | options | wrong))
        assert caught.value.param == param, wrong
    with pytest.raises(openai.NotFoundError):
        client.images.edit(image=small, prompt="a cat", model="nobody")
    with pytest.raises(openai.BadRequestError, match="is a text model"):
        client.images.edit(image=small, prompt="a cat", model="llama")


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("application/json", b"{}", "multipart/form-data"),
        ("multipart/form-data", b"x", "cannot be read"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n", "cannot be read"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", "prompt"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
            b"Content-Transfer-Encoding: x\r\n\r\nx\r\n--b--\r\n",
            "cannot be read",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n\xff\r\n--b--\r\n',
            "cannot be read",
        ),
    ],
)
def test_what_is_no_form_is_refused(
    painter: Server, content_type: str, body: bytes, said: str
) -> None:
    headers = {"Content-Type": content_type}
    status, answer, _ = painter.request("POST", "/v1/images/edits", body, headers)
    assert status == 400
    assert said in answer["error"]["message"]


def test_a_form_that_is_compressed_is_refused(painter: Server) -> None:
    """Nobody else would have a turn while it is unpacked, and no client sends one."""
    body = gzip.compress(
        b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--b--\r\n'
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Encoding": "gzip"}
    status, answer, _ = painter.request("POST", "/v1/images/edits", body, headers)
    assert status == 400
    assert "without Content-Encoding" in answer["error"]["message"]
