"""A run: many requests to one server, and what was wrong with their answers."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from server_process import Server

from fuzzing.client import Answer, Client
from fuzzing.oracles import fault_of, twin_fault
from fuzzing.requests import Request

NUM_TOGETHER = 4
"""Requests that are sent at the same time."""
HEALTH_LIMIT_S = 10.0


class Watch(threading.Thread):
    """Asks the server all the time whether it is well."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._client = Client(url, {})
        self._is_over = threading.Event()
        self.faults: list[str] = []
        self.slowest_s = 0.0

    def run(self) -> None:
        while not self._is_over.wait(0.5):
            answer = self._client.send(Request("GET", "/health", "/health"))
            self.slowest_s = max(self.slowest_s, answer.seconds)
            if answer.status != 200 or answer.seconds > HEALTH_LIMIT_S:
                self.faults.append(f"/health: {answer}")

    def stop(self) -> None:
        """Ends it."""
        self._is_over.set()
        self.join(HEALTH_LIMIT_S)


class Run:
    """The requests of a run, and what was wrong with their answers."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._known = {"@response": "resp_0", "@job": "0", "@request": "req_0", "@context": "doc"}
        self._known["@folder"] = str(folder)
        self._clients = [Client(server.url, self._known) for _ in range(NUM_TOGETHER)]
        self._threads = ThreadPoolExecutor(len(self._clients))
        self.faults: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        self.num_twins = 0

    def send(self, requests: list[Request]) -> None:
        """Sends requests at the same time, and checks their answers."""
        assert self._server.process.poll() is None, f"the server died before {requests}"
        num_before = self.statuses.total()
        list(self._threads.map(self._send, self._clients, requests))
        if num_before // 500 < self.statuses.total() // 500:
            print(f"{self.statuses.total()} requests", flush=True)
        assert self._server.process.poll() is None, f"the server died of {requests}"

    def _send(self, client: Client, request: Request) -> None:
        answer = self._sent(client, request)
        if request.is_twin and request.body is not None:
            body = request.body[:-1] + b', "stream": true}'
            streamed = self._sent(client, replace(request, body=body))
            self.num_twins += 1
            self._note(request, twin_fault(request, answer, streamed))

    def sent(self, request: Request) -> Answer:
        """Sends one request alone."""
        return self._sent(self._clients[0], request)

    def _sent(self, client: Client, request: Request) -> Answer:
        answer = client.send(request)
        self.statuses[answer.status] += 1
        self.asked[f"{request.method} {request.endpoint} {answer.status}"] += 1
        fault = fault_of(request, answer)
        self._note(request, fault)
        # Of twins nothing is learned: others would change the context that they ask about.
        may_learn = not (fault or request.leaves or request.is_twin)
        is_object = answer.status == 200 and answer.media_type == "application/json"
        if may_learn and is_object and request.method in ("GET", "POST"):
            self._learn(answer)
        return answer

    def summary(self) -> str:
        """What was asked how often, and how it was answered."""
        lines = [f"{count:6} {asked}" for asked, count in sorted(self.asked.items())]
        statuses = dict(sorted(self.statuses.items()))
        return "\n".join(
            [*lines, f"{self.statuses.total()} requests, {self.num_twins} twins: {statuses}"]
        )

    def _learn(self, answer: Answer) -> None:
        """Keeps ids that later requests may refer to."""
        self._known["@request"] = answer.headers.get("x-request-id", "req_0")
        body = answer.json()
        if body.get("object") == "response" and "output" in body:
            self._known["@response"] = body["id"]
        for name, known in (("context_id", "@context"), ("job_id", "@job")):
            if isinstance(body.get(name), str):
                self._known[known] = body[name]

    def _note(self, request: Request, fault: str) -> None:
        if fault:
            shown = replace(request, body=request.body and request.body[:3000])
            self.faults.append(f"{fault[:1500]}\n    {shown}")
            print(self.faults[-1], flush=True)
