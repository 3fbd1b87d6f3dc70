"""Reading images and audio: sources, limits, damage, and URLs."""

from __future__ import annotations

import base64
import http.server
import io
import random
import socket
import ssl
import struct
import threading
import time
import tracemalloc
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from snapllm import _media
from snapllm._fetch import UrlFetcher, is_public_address
from snapllm._media import MediaLoader, MediaPolicy, decode_audio, decode_image, load_image
from snapllm.contexts.prompt import document_messages
from snapllm.conversation import ContentPart, ImageUrl, InputAudio, MediaPart
from snapllm.errors import InvalidRequestError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def picture(width: int = 40, height: int = 30) -> np.ndarray:
    """A picture without two equal pixels next to each other."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], 2).astype(np.uint8)


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def png_with_size(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header claims a size that its data need not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def wav(seconds: float = 0.5, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(b"\x01\x02" * int(seconds * rate))
    return file.getvalue()


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "BMP"])
def test_an_image_is_its_pixels(format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = encode(Image.fromarray(picture()), format_, **options)
    found = decode_image(data, "x")
    assert (found.kind, found.width, found.height) == ("image", 40, 30)
    assert found.data == picture().tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(picture()).convert("L")
    if mode.startswith("I"):
        wide = np.asarray(grey).astype(np.uint32) * 257
        image = Image.fromarray(wide.astype(np.uint16 if mode == "I;16" else np.int32))
    else:
        image = grey.convert("RGB").convert(mode)
    found = load_image(image, "x")
    assert len(found.data) == 40 * 30 * 3
    if mode in ("L", "I;16", "I"):
        pixels = np.frombuffer(found.data, np.uint8).reshape(30, 40, 3)
        assert np.abs(pixels[..., 0].astype(int) - np.asarray(grey)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_is_seen_on_white(mode: str) -> None:
    """Its colour, which nobody sees, is black as often as not."""
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    expected = [255, 0, 255]
    if mode in ("P", "RGB", "L"):  # as one of its colours
        image = Image.new("L", (3, 1), 7)
        image.putpixel((1, 0), 0)
        image = image.convert(mode)
        image.info["transparency"] = (7, 7, 7) if mode == "RGB" else image.getpixel((0, 0))
    else:
        image.putpixel((2, 0), (0, 0, 0, 51))
        expected[2] = 204
        image = image.convert(mode)
    for source in (image, encode(image)):
        found = load_image(source, "x")
        assert list(found.data[::3]) == list(found.data[1::3]) == expected
    if mode == "RGBA":
        assert list(load_image(np.asarray(image), "x").data[::3]) == expected
        assert list(load_image(image, "x", drop_alpha=True).data[::3]) == [0, 0, 0]


def test_all_sources_of_one_picture_are_the_same(tmp_path: Path) -> None:
    array = picture()
    image = Image.fromarray(array)
    path = tmp_path / "a.png"
    image.save(path)
    sources = [array, image, path, str(path), path.read_bytes(), bytearray(path.read_bytes())]
    assert len({load_image(source, "x").id for source in sources}) == 1
    assert load_image(array[::-1], "x").id != load_image(array, "x").id
    assert load_image(array.reshape(40, 30, 3), "x").id != load_image(array, "x").id


def test_a_turned_photograph_is_turned_back() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    data = encode(Image.fromarray(picture()), "JPEG", exif=exif.tobytes())
    found = decode_image(data, "x")
    assert (found.width, found.height) == (30, 40)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (b"%PDF-1.4", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (encode(Image.fromarray(picture()), "TIFF"), "not an image"),
        (encode(Image.fromarray(picture()))[:80], "damaged"),
        (encode(Image.fromarray(picture()), "JPEG")[:300], "damaged"),
        (png_with_size(0, 10), "empty|not an image|damaged"),
        (png_with_size(10_000, 10_000), "too many pixels"),
        (png_with_size(2**31 - 1, 2**31 - 1), "too many pixels"),
        (png_with_size(60_000, 1), "60000 x 1, at most 16384 pixels a side"),
        (png_with_size(1000, 17_000), "1000 x 17000, at most 16384 pixels a side"),
        (png_with_size(1, 9000), "times as long"),
        (png_with_size(10, 10, zlib.compress(b"")), "damaged"),
        (5, "expected a path"),
        (None, "expected a path"),
        ("/no/such/file.png", "cannot read"),
        ("a\0b", "cannot read"),
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((4, 4, 2), np.uint8), "uint8"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros(4, np.uint8), "uint8"),
    ],
)
def test_what_is_no_good_image_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        load_image(source, "images[0]")
    assert caught.value.param == "images[0]"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    # 400 MB of nothing in half a megabyte, and a claim that hides it.
    bomb = png_with_size(16_000, 8_000, zlib.compress(bytes(16_000 * 3 + 1) * 8_000))
    assert len(bomb) < 1 << 20
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(InvalidRequestError, match="too many pixels"):
        decode_image(bomb, "x")
    with pytest.raises(InvalidRequestError, match="bytes"):
        decode_image(bytes(_media.MAX_IMAGE_BYTES + 1), "x")


def test_a_jpeg_has_so_many_parts_and_no_more() -> None:
    """A scan of a dozen bytes costs a pass over the whole image."""
    plain = encode(Image.fromarray(picture()), "JPEG", progressive=True)
    last_scan = plain[plain.rfind(b"\xff\xda") : -2]
    end = plain[-2:]
    more = plain[:-2] + last_scan * 20 + end
    assert decode_image(more, "x").width == decode_image(plain, "x").width
    exif = b"\xff\xe1\x00\x08Exif\0\0"
    for data in (
        plain[:-2] + last_scan * 200 + end,
        plain[:2] + exif * 20 + plain[2:],
        plain[:2] + b"\xff\xfe\x00\x02" * 3000 + plain[2:],
        plain[:2] + b"\xff\x01" * 3000 + plain[2:],
        # What Pillow reads on behind.
        plain[:2] + b"\xff\xd9" + exif * 20 + plain[2:],
        plain[:2] + b"\xff\xf0\xff\xff" + exif * 20 + plain[2:],
    ):
        with pytest.raises(InvalidRequestError, match="too many parts"):
            decode_image(data, "x")
    # Behind its end may stand anything: phones put a film there.
    assert decode_image(plain + last_scan * 200, "x").id == decode_image(plain, "x").id
    restarts = encode(Image.fromarray(picture()), "JPEG", restart_marker_blocks=1)
    assert decode_image(restarts, "x").width == decode_image(plain, "x").width


def test_tags_of_a_picture_do_not_multiply_its_bytes() -> None:
    """Each of them may stand for the same megabyte."""
    tags = [(0x9000 + i, 1, 1 << 20, 8) for i in range(3000)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    blob = bytes(1 << 20)
    exif = b"II*\0" + struct.pack("<I", 8 + len(blob)) + blob + directory + bytes(4)
    data = encode(Image.fromarray(picture()), "PNG", exif=exif)
    tracemalloc.start()
    try:
        decode_image(data, "x")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_mutated_images_are_read_or_refused() -> None:
    rng = random.Random(5)
    files = [encode(Image.fromarray(picture()), format_) for format_ in FORMATS]
    num_read = 0
    for _ in range(10_000):
        data = bytearray(rng.choice(files))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        try:
            found = decode_image(bytes(data), "x")
        except InvalidRequestError:
            continue
        num_read += 1
        assert len(found.data) == found.width * found.height * 3
    assert num_read > 500


def part(url: str) -> ContentPart:
    return ContentPart("image_url", image_url=ImageUrl(url))


def test_data_urls_are_read_and_others_refused() -> None:
    loader = MediaLoader(MediaPolicy())
    data = base64.b64encode(encode(Image.fromarray(picture()))).decode()
    for url in (f"data:image/png;base64,{data}", f"DATA:;base64,{data.rstrip('=')}"):
        assert loader.place(part(url), "x") == loader.marker
    escaped = f"data:image/png;base64,{quote(data, safe='')}"
    assert "%2F" in escaped and loader.place(part(escaped), "x") == loader.marker
    assert loader.place(ContentPart("image_url", image_url=url), "x") == loader.marker
    assert len({found.id for found in loader.inputs}) == 1
    for url, message in (
        ("http://example.org/a.png", "not fetched from URLs here; send their bytes in base64"),
        ("file:///etc/passwd", "must be a data URL"),
        ("/etc/passwd", "must be a data URL"),
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64,***", "not valid base64"),
        ("", "is required|must be a data URL"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            loader.place(part(url), "x")
    for wrong in (ContentPart("image_url"), ContentPart("input_audio"), ContentPart("image")):
        with pytest.raises(InvalidRequestError, match="is required"):
            loader.place(wrong, "x")


def test_a_request_has_so_many_images_and_no_more() -> None:
    loader = MediaLoader(MediaPolicy())
    url = "data:;base64," + base64.b64encode(encode(Image.fromarray(picture(2, 2)))).decode()
    for _ in range(_media.MAX_MEDIA):
        loader.place(part(url), "x")
    elsewhere = MediaPart("image", name="images[64]", source=b"")
    for each, param in ((part(url), "x"), (elsewhere, "images[64]")):
        with pytest.raises(InvalidRequestError, match="more than") as caught:
            loader.place(each, "x")
        assert caught.value.param == param and str(caught.value).startswith(f"{param}: ")


def test_the_images_of_a_request_have_so_many_pixels_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are all held until the last is read: 64 of the largest were 6 GB."""
    monkeypatch.setattr(_media, "MAX_PIXELS", 10_000)
    loader = MediaLoader(MediaPolicy())
    url = "data:;base64," + base64.b64encode(encode(Image.fromarray(picture(40, 60)))).decode()
    sources = [encode(Image.fromarray(picture(40, 60))), Image.new("RGB", (40, 60))]
    loader.place(part(url), "x")
    for source in sources:
        loader.place(MediaPart("image", name="x", source=source), "x")
    loader.place(part(url), "x")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    wrong = [part(url), *(MediaPart("image", name="y.image_url", source=each) for each in sources)]
    for each in wrong:
        with pytest.raises(InvalidRequestError, match="more than 10000 pixels") as caught:
            loader.place(each, "y")
        assert caught.value.param == "y.image_url"


def test_the_media_of_a_document_are_named_as_it_has_them() -> None:
    sound = ContentPart("input_audio", input_audio=InputAudio("AAAA", "wav"))
    [message] = document_messages([ContentPart("text", "x"), part("data:,"), sound], [])
    assert isinstance(message.content, list)
    for i, kind in ((1, "image_url"), (2, "input_audio")):
        each = message.content[i]
        with pytest.raises(InvalidRequestError) as caught:
            MediaLoader(MediaPolicy(), takes_images=False, takes_audio=False).place(each, "y")
        assert caught.value.param == f"content[{i}].{kind}"


def test_what_the_model_does_not_take_is_named() -> None:
    image, sound = part("data:,"), ContentPart("input_audio")
    seen = MediaPart("image", name="images[3]", source="/no/such.png")
    for takes_images, takes_audio, refused, param, message in (
        (False, False, image, "content[0].image_url", "text only"),
        (False, True, image, "content[0].image_url", "no images"),
        (False, True, seen, "images[3]", "no images"),
        (True, False, sound, "content[0].input_audio", "no audio"),
    ):
        loader = MediaLoader(MediaPolicy(), takes_images=takes_images, takes_audio=takes_audio)
        with pytest.raises(InvalidRequestError, match=message) as caught:
            loader.place(refused, "content[0]")
        assert caught.value.param == param


def test_audio_is_checked() -> None:
    loader = MediaLoader(MediaPolicy())
    sound = base64.b64encode(wav()).decode()
    loader.place(ContentPart("input_audio", input_audio=InputAudio(sound, "wav")), "x")
    assert loader.inputs[0].kind == "audio"
    assert decode_audio(b"ID3" + bytes(100), "mp3", "x").kind == "audio"
    for data, format_ in (
        (b"", "wav"),
        (b"RIFF", "wav"),
        (wav()[:30], "wav"),
        (wav(0.0), "wav"),
        (wav(700, 1000), "wav"),
        (b"fLaC" + bytes(100), "wav"),
        (b"fLaC" + bytes(100), "mp3"),
        (b"ID3" + bytes(_media.MAX_MP3_BYTES), "mp3"),
        (wav(), "flac"),
    ):
        with pytest.raises(InvalidRequestError):
            decode_audio(data, format_, "x")


def test_the_sounds_of_a_request_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_media, "MAX_WAV_SECONDS", 1.0)
    monkeypatch.setattr(_media, "MAX_MP3_BYTES", 200)

    def part(data: bytes, format_: Literal["wav", "mp3"]) -> ContentPart:
        sound = base64.b64encode(data).decode()
        return ContentPart("input_audio", input_audio=InputAudio(sound, format_))

    long, song = part(wav(0.9), "wav"), part(b"ID3" + bytes(180), "mp3")
    for fits, does_not in (([long, song], long), ([long, long], song), ([song, song], song)):
        loader = MediaLoader(MediaPolicy())
        for i, each in enumerate(fits):
            loader.place(each, f"content[{i}]")
        with pytest.raises(InvalidRequestError, match="too long together") as caught:
            loader.place(does_not, "content[2]")
        assert caught.value.param == "content[2].input_audio"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/image")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        if self.path == "/slow":
            time.sleep(0.5)
        if self.path == "/endless":
            try:
                while True:
                    self.wfile.write(bytes(1 << 20))
            except OSError:
                return
        self.wfile.write(b"an image" + self.path.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_an_allowed_host_is_fetched_from(port: int) -> None:
    fetch = UrlFetcher(["LOCALHOST"], is_allowed_address=lambda address: True)
    assert fetch(f"http://localhost:{port}/image?a=1") == b"an image/image?a=1"
    loader = MediaLoader(MediaPolicy(fetch=fetch))
    with pytest.raises(InvalidRequestError, match="not an image"):
        loader.place(part(f"http://localhost:{port}/image"), "x")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/redirect", "302"),
        ("/missing", "404"),
        ("/slow", "timed out"),
        ("/endless", "more than"),
    ],
)
def test_what_an_allowed_host_may_not_do(port: int, path: str, message: str) -> None:
    timeout_s = 0.2 if path == "/slow" else 10
    fetch = UrlFetcher(["localhost"], timeout_s=timeout_s, is_allowed_address=lambda address: True)
    with pytest.raises(InvalidRequestError, match=message):
        fetch(f"http://localhost:{port}{path}")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.org/a.png", "example.org"),
        ("https://example.org:443/a.png", "example.org"),
        ("https://example.org:80/a.png", "example.org:80"),
        ("http://example.org/a.png", "example.org"),
        ("http://example.org:443/a.png", "example.org:443"),
    ],
)
def test_a_host_is_named_with_its_port_only_where_that_is_unusual(
    monkeypatch: pytest.MonkeyPatch, url: str, host: str
) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr("snapllm._fetch._addresses_of", lambda *_: ["1.1.1.1"])
    monkeypatch.setattr(socket, "create_connection", lambda *_: ours)
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", lambda _, plain, **options: plain)
    with theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        assert UrlFetcher(["example.org"])(url) == b"x"
        assert f"\r\nHost: {host}\r\n".encode() in theirs.recv(4096)


def test_private_addresses_and_other_hosts_are_refused(port: int) -> None:
    fetch = UrlFetcher(["localhost", "*.example.org"])
    for url, message in (
        (f"http://localhost:{port}/image", "not public"),
        (f"http://127.0.0.1:{port}/image", "not allowed"),
        ("http://example.org/a.png", "not allowed"),
        ("http://notexample.org/a.png", "not allowed"),
        ("http://localhost@evil.org/", "not an http"),
        ("http://user:word@localhost/", "not an http"),
        ("ftp://localhost/", "not an http"),
        ("http://[::1/", "not a valid"),
        ("http://localhost:99999/", "not a valid"),
        ("http:///a", "not an http"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            fetch(url)


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1", False),
        ("fd00::1", False),
    ],
)
def test_only_addresses_of_the_public_internet_count(address: str, is_public: bool) -> None:
    assert is_public_address(address) is is_public
