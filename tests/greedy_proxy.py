"""A proxy that asks for the likeliest tokens, for clients that name no temperature.

What a program makes of a sampled answer is chance; with it, it is the same each time.
"""

from __future__ import annotations

import http.client
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TIMEOUT_S = 300
_NOT_FORWARDED = {"connection", "content-length", "host", "transfer-encoding"}


class GreedyProxy(http.server.ThreadingHTTPServer):
    """Passes requests on to one server, and keeps the bodies of those that were posted."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urllib.parse.urlsplit(target)
        self.bodies: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, GreedyProxy)
        self.server.bodies.append(body)
        self._pass_on(json.dumps(body | {"temperature": 0}).encode())

    def _pass_on(self, body: bytes | None) -> None:
        assert isinstance(self.server, GreedyProxy)
        target = self.server.target
        connection = http.client.HTTPConnection(
            target.hostname or "", target.port, timeout=TIMEOUT_S
        )
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_FORWARDED}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _NOT_FORWARDED:
                self.send_header(name, value)
        self.end_headers()  # the end of the connection is the body's
        while part := response.read1():
            self.wfile.write(part)
            self.wfile.flush()
        connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def greedy(target: str) -> Iterator[GreedyProxy]:
    """A proxy of the server at this address, up to the end of the block."""
    with GreedyProxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
