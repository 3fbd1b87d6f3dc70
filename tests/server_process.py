"""A server process, started as a user starts it, and a plain HTTP client for it."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from typing import Any, ClassVar

from described_answers import check_described, check_described_stream

START_TIMEOUT_S = 60.0
LINE_TIMEOUT_S = 20.0


class Server:
    """A server process on a free port; its log lines are kept."""

    started: ClassVar[list[Server]] = []
    """All of them, so that none outlives the test that started it."""

    def __init__(self, *arguments: str) -> None:
        self._data = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snapllm.serve", "--port", "0", "--threads", "1", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={"XDG_DATA_HOME": self._data.name} | os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[str] = []
        self._new_lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""
        self.started.append(self)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            self._new_lines.put(line)
        self._new_lines.put(None)

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """Waits for a log line; fails when the process ends without it."""
        while True:
            line = self._new_lines.get(timeout=START_TIMEOUT_S)
            if line is None:
                raise AssertionError("the server ended:\n" + "\n".join(self.lines))
            if match := re.search(pattern, line):
                return match

    def line_with(self, *words: str) -> str:
        """The first log line of all with these words; waits for it.

        An answer can be here before the line that the server writes about it.
        """
        deadline = time.monotonic() + LINE_TIMEOUT_S
        while True:
            for line in list(self.lines):
                if all(word in line for word in words):
                    return line
            assert time.monotonic() < deadline, (words, self.lines[-5:])
            time.sleep(0.02)

    def start(self, num_models: int) -> Server:
        """Waits until it listens and has loaded its models; ends it where it does not."""
        try:
            while num_models > 0 or not self.url:
                line = self.wait_for_line(r"listening on (http://\S+)|loaded \S+")
                self.url = line[1] or self.url
                num_models -= line[1] is None
        except BaseException:
            self.kill()
            raise
        return self

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, decoded body and headers of one request; a good answer must be as described."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        wanted = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"} | (headers or {})
        )
        wanted.get_method = lambda: method  # type: ignore[method-assign]
        try:
            with urllib.request.urlopen(wanted, timeout=60) as response:
                status, raw, found = response.status, response.read(), dict(response.headers)
        except urllib.error.HTTPError as error:
            status, raw, found = error.code, error.read(), dict(error.headers)
        if found.get("Content-Type", "").startswith("text/event-stream"):
            check_described_stream(method, path, raw.decode())
        if not found.get("Content-Type", "").startswith("application/json"):
            return status, raw.decode(), found
        answer = json.loads(raw)
        if status == 200:
            is_anthropics = "anthropic-version" in (headers or {})
            check_described(method, path, answer, is_anthropics=is_anthropics)
        return status, answer, found

    def get(self, path: str) -> Any:
        """The body of a GET that must succeed."""
        status, body, _ = self.request("GET", path)
        assert status == 200, body
        return body

    def post(self, path: str, body: Any) -> Any:
        """The body of a POST that must succeed."""
        status, answer, _ = self.request("POST", path, body)
        assert status == 200, answer
        return answer

    def stop(self) -> int:
        """Ends the process as a service manager does; returns its exit status.

        All that it said is among the lines then.
        """
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=90)
        self._reader.join(10)
        self._data.cleanup()
        return status

    def kill(self) -> None:
        """Ends the process at once, if it still runs."""
        self.process.kill()
        self.process.wait(timeout=30)
        self._data.cleanup()
