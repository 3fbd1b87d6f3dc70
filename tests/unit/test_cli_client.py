"""How the command line deals with servers that do not keep what they promise."""

from __future__ import annotations

import http.server
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapllm.cli import main

CONTENT = b"a context" * 1000


class _Handler(http.server.BaseHTTPRequestHandler):
    """Sends as many bytes as the path says of an answer of `CONTENT`'s length."""

    def do_GET(self) -> None:
        wanted = self.path.split("/")[-2]
        self.send_response(200)
        if wanted == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n")
            return
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: int(wanted)])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = {"context_id": "c", "token_count": len(body), "tier": "hot"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("context", ["100", "0", "chunked"])
def test_an_export_that_is_cut_off_fails_and_leaves_the_old_file(
    url: str, context: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "handbook.snapctx"
    path.write_bytes(b"the old one")
    assert main(["contexts", "--url", url, "export", context, str(path)]) == 1
    shown = capsys.readouterr()
    assert "was cut off" in shown.err and shown.err.count("\n") == 1
    assert shown.out == ""
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_an_export_replaces_what_a_link_leads_to(url: str, tmp_path: Path) -> None:
    path, link = tmp_path / "real", tmp_path / "link"
    path.write_bytes(b"the old one")
    link.symlink_to(path)
    assert main(["contexts", "--url", url, "export", str(len(CONTENT)), str(link)]) == 0
    assert link.is_symlink() and path.read_bytes() == CONTENT
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_an_export_to_a_device_replaces_nothing(url: str) -> None:
    assert main(["contexts", "--url", url, "export", str(len(CONTENT)), "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()


def test_an_export_to_standard_output_is_nothing_but_the_file(
    url: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["contexts", "--url", url, "export", str(len(CONTENT)), "-"]) == 0
    shown = capfdbinary.readouterr()
    assert shown.out == CONTENT
    assert shown.err == b"-: 0.0 MB\n"


def test_an_export_is_not_written_on_a_terminal(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["contexts", "--url", url, "export", str(len(CONTENT)), "-"]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("name a file")) == ("", 1)


def test_an_export_that_cannot_be_written_names_the_file_that_was_asked_for(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "no" / "such"
    assert main(["contexts", "--url", url, "export", str(len(CONTENT)), str(path)]) == 1
    error = capsys.readouterr().err
    assert error.rstrip().endswith(f"No such file or directory: '{path}'")


@pytest.mark.parametrize(("data", "words"), [(b"", "is empty"), (b"\xff", "is not UTF-8 text")])
def test_a_document_that_is_none_is_said_by_its_name(
    data: bytes,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "document"
    path.write_bytes(data)
    assert main(["contexts", "ingest", str(path), "--model", "demo"]) == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["contexts", "append", "handbook", "-"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"snapllm contexts: {path} {words}",
        f"snapllm contexts: what is piped in {words}",
    ]


@pytest.mark.parametrize("kind", ["file", "piped", "redirected", "half read", "pipe"])
def test_an_import_sends_a_file_or_what_is_piped_in(
    url: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path, source = tmp_path / "handbook.snapctx", "-"
    path.write_bytes(CONTENT)
    if kind in ("piped", "pipe"):
        reading, writing = os.pipe()
        os.write(writing, CONTENT)
        os.close(writing)
    else:
        reading = os.open(path, os.O_RDONLY)
    with os.fdopen(reading, "rb", buffering=0 if kind == "half read" else -1) as given:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given))  # type: ignore[type-var]
        if kind == "half read":
            given.read(1000)
        if kind in ("file", "pipe"):
            source = str(path) if kind == "file" else f"/dev/fd/{reading}"
        assert main(["contexts", "--url", url, "import", source]) == 0
    num_bytes = len(CONTENT) - 1000 * (kind == "half read")
    assert capsys.readouterr().out == f"c: {num_bytes} tokens, hot\n"
