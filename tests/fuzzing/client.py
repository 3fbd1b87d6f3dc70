"""Sends requests as they are, and reads what comes back."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fuzzing.requests import Request

TIME_LIMIT_S = 75.0
"""A request whose model has to come back waits for busy models for up to a minute."""


@dataclass
class Event:
    """A server-sent event."""

    name: str
    data: str


@dataclass
class Answer:
    """What came back; `problem` where nothing or not all of it did."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    problem: str = ""

    @property
    def media_type(self) -> str:
        """Of the body."""
        return self.headers.get("content-type", "").partition(";")[0]

    def json(self) -> Any:
        """The body, which must be JSON in the strict sense."""
        return json.loads(self.body.decode(), parse_constant=_refuse)

    def events(self) -> list[Event]:
        """The events of a stream; comments are left out."""
        events = []
        text = self.body.decode()
        assert text == "" or text.endswith("\n\n"), "the last event is not whole"
        for block in text.split("\n\n"):
            lines = [line for line in block.split("\n") if line and not line.startswith(":")]
            fields = [line.partition(": ")[::2] for line in lines]
            assert all(name in ("event", "data") for name, _ in fields), block[:200]
            if fields:
                named = dict(fields)
                events.append(Event(named.get("event", ""), named.get("data", "")))
        return events


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


class Client:
    """A client of one server, with one connection that is kept open.

    Args:
        url: Of the server.
        known: Ids and paths, by what stands for them in requests; may change meanwhile.
    """

    def __init__(self, url: str, known: Mapping[str, str]) -> None:
        self._host = urlsplit(url).netloc
        self._known = known
        self._connection: http.client.HTTPConnection | None = None

    def send(self, request: Request) -> Answer:
        """Sends a request and reads the answer, or the beginning of it if the client leaves."""
        start = time.monotonic()
        is_reused = self._connection is not None
        answer = self._try(request)
        # A kept connection may have been closed while the request was on its way.
        if answer.problem.startswith(("Remote", "BrokenPipe", "ConnectionReset")) and is_reused:
            answer = self._try(request)
        answer.seconds = time.monotonic() - start
        if answer.problem or request.leaves or answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _try(self, request: Request) -> Answer:
        answer = Answer()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, timeout=TIME_LIMIT_S)
        try:
            self._write(self._connection, request)
            response = self._connection.getresponse()
            answer.status = response.status
            answer.headers = {name.lower(): value for name, value in response.getheaders()}
            answer.body = response.read(64) if request.leaves else response.read()
        except Exception as error:
            answer.problem = f"{type(error).__name__}: {error}"
            self.close()
        return answer

    def _write(self, connection: http.client.HTTPConnection, request: Request) -> None:
        path, body = request.path, request.body
        for name, value in self._known.items():
            path = path.replace(name, value)
            body = body and body.replace(name.encode(), value.encode())
        has_host = "Host" in request.headers
        connection.putrequest(request.method, path, skip_host=has_host, skip_accept_encoding=True)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        for name, value in (headers | request.headers).items():
            connection.putheader(name, value.encode("latin-1"))
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
