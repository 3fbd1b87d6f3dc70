"""A model hub on this machine, as far as `huggingface_hub` asks one for files."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" + "0" * 34


class FakeHub:
    """Serves repositories of files; `downloads` are the files that were sent."""

    def __init__(self, repos: dict[str, dict[str, Path]]) -> None:
        hub = self
        self.downloads: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def _answer(self) -> None:
                for repo, files in repos.items():
                    if self.path.startswith(f"/api/models/{repo}/tree/main"):
                        listed = [
                            {"type": "file", "oid": _digest(path), "path": name}
                            | {"size": path.stat().st_size}
                            for name, path in files.items()
                        ]
                        return self._send(json.dumps(listed).encode(), {})
                    for name, path in files.items():
                        if self.path == f"/{repo}/resolve/main/{name}":
                            if self.command == "GET":
                                hub.downloads.append(name)
                            headers = {"ETag": f'"{_digest(path)}"', "X-Repo-Commit": COMMIT}
                            return self._send(path.read_bytes(), headers)
                return self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, status=404)

            def _send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends it; whoever asks is refused the connection from then on."""
        self._server.shutdown()
        self._server.server_close()


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
