"""A server's life: start, clients that leave, shutdown."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nano_models import make_nano_model
from server_process import Server
from waiting import wait_until

# Of a model with the long context: an answer that no test waits for.
LONG = {
    "model": "llama",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 30_000,
    "stream": True,
    "logit_bias": {str(number): -100 for number in range(262, 265)},
}


@pytest.fixture(scope="module")
def long_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "llama.gguf"
    return make_nano_model(path, context_size=32768)


@pytest.fixture(scope="module")
def long_server(long_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose answers are so long that only a cancellation ends them in time."""
    qwen_path = make_nano_model(
        tmp_path_factory.mktemp("long") / "qwen.gguf", "qwen3", seed=2, context_size=32768
    )
    server = Server("--model", f"llama={long_path}", "--model", f"qwen={qwen_path}")
    try:
        yield server.start(2)
        assert server.stop() == 0
    finally:
        server.kill()


def open_stream(server: Server, body: dict[str, Any]) -> http.client.HTTPConnection:
    """Sends a request and reads the beginning of its answer."""
    address = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    connection.getresponse().read(10)
    return connection


def requests(server: Server, *states: str) -> int:
    """How many requests of all models are, or were, in these states."""
    models = server.get("/api/v1/models/cache/stats")["stats"]["models"]
    return sum(model[f"requests_{state}"] for model in models for state in states)


def wait_until_idle(server: Server) -> None:
    wait_until(
        lambda: requests(server, "running", "waiting") == 0,
        "requests of clients that left are still running",
    )


def test_health_says_what_is_loaded(server: Server) -> None:
    health = server.get("/health")
    assert health["status"] == "ok"
    assert sorted(health["models_loaded"]) == ["llama", "qwen"]
    assert health["active_model"] == "llama"


def test_the_request_id_of_the_client_is_kept(server: Server) -> None:
    _, _, headers = server.request("GET", "/health", headers={"x-request-id": "mine-1"})
    assert headers["x-request-id"] == "mine-1"
    assert "path=/health status=200" in server.line_with("snapllm.access", "mine-1")


def test_a_client_that_leaves_cancels_its_request(long_server: Server) -> None:
    cancelled = requests(long_server, "cancelled")
    connections = [open_stream(long_server, LONG) for _ in range(3)]
    wait_until(lambda: requests(long_server, "running") == 3)
    for connection in connections:
        assert connection.sock is not None
        connection.sock.close()
        connection.close()
    wait_until_idle(long_server)
    assert requests(long_server, "cancelled") == cancelled + 3


def test_a_client_that_leaves_before_the_first_token_is_cancelled_too(long_server: Server) -> None:
    cancelled = requests(long_server, "cancelled")
    address = urllib.parse.urlsplit(long_server.url)
    for number in range(3):
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        # Seconds of prompt, and a beginning of its own, of which nothing is known yet.
        messages = [{"role": "user", "content": f"{number} " + "word " * 4000}]
        body = LONG | {"messages": messages, "max_tokens": 4000, "stream": False}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        wait_until(lambda: requests(long_server, "running"))
        connection.close()
        wait_until_idle(long_server)
    assert requests(long_server, "cancelled") == cancelled + 3


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM,),
        # Of a terminal that is closed, the system and its shell each send one.
        (signal.SIGHUP, signal.SIGHUP),
    ],
)
def test_a_signal_to_end_lets_a_running_answer_finish(
    signals: tuple[signal.Signals, ...], llama_path: Path
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup
    try:
        server = Server("--model", f"llama={llama_path}", "--drain-timeout", "60").start(1)
    finally:
        signal.signal(signal.SIGHUP, before)
    answers: list[bytes] = []

    def read() -> None:
        address = urllib.parse.urlsplit(server.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        body = json.dumps(LONG | {"max_tokens": 400})
        connection.request("POST", "/v1/chat/completions", body)
        response = connection.getresponse()
        answers.append(response.read(10))
        started.set()
        answers.append(response.read())

    started = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(30)
    for number in signals:
        server.process.send_signal(number)
        server.line_with("shutting down")
    assert server.process.wait(90) == 0
    reader.join(10)
    assert b"[DONE]" in answers[1]
    assert not any("Traceback" in line for line in server.lines)


def worker_seconds(server: Server) -> float:
    """CPU time of the processes that the server started."""
    threads = Path(f"/proc/{server.process.pid}/task").iterdir()
    children = [pid for thread in threads for pid in (thread / "children").read_text().split()]
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def post_while_it_ends(
    server: Server, path: str, body: dict[str, Any], is_under_way: Callable[[], object]
) -> tuple[int, Any]:
    """The answer to a request that is under way when the server is told to end."""
    answers: list[tuple[int, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(server.request("POST", path, body)[:2]))
    asking.start()
    wait_until(is_under_way)
    assert asking.is_alive(), "too quick to tell"
    assert server.stop() == 0
    asking.join(10)
    assert not any("Traceback" in line for line in server.lines)
    return answers[0]


def test_sigterm_lets_running_embeddings_finish(llama_path: Path) -> None:
    """They go to the engine in parts."""
    server = Server("--model", f"llama={llama_path}", "--drain-timeout", "60").start(1)
    body = {"model": "llama", "input": [[5] * 1000] * 120}
    status, answer = post_while_it_ends(
        server, "/v1/embeddings", body, lambda: requests(server, "running")
    )
    assert status == 200, answer
    assert len(answer["data"]) == 120


@pytest.mark.parametrize(("drain", "status"), [("60", 200), ("0.1", 503)])
def test_sigterm_lets_a_running_image_finish(
    image_files: dict[str, Path], drain: str, status: int
) -> None:
    server = Server(
        *("--model", f"pix={image_files['diffusion_model']}", "--drain-timeout", drain),
        *("--part", f"pix.llm={image_files['llm']}", "--part", f"pix.taesd={image_files['taesd']}"),
    ).start(1)
    body = {"prompt": "a cat", "width": 128, "height": 128, "steps": 50}
    before = worker_seconds(server)
    found, answer = post_while_it_ends(
        server,
        "/api/v1/diffusion/generate",
        body,
        lambda: worker_seconds(server) > before + 0.05,
    )
    assert found == status, answer
    assert answer["image"] if status == 200 else answer["error"]["code"] == "closed"


@pytest.mark.parametrize(("drain", "status"), [("60", 200), ("0", 503)])
def test_a_request_that_came_before_sigterm_is_answered_though_it_was_not_computed_yet(
    llama_path: Path, drain: str, status: int
) -> None:
    server = Server("--model", f"llama={llama_path}", "--drain-timeout", drain).start(1)
    try:
        body = json.dumps({"model": "llama", "prompt": "Hello", "max_tokens": 2}).encode()
        address = urllib.parse.urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert b" 100 Continue" in client.recv(1000)  # its handler runs
            server.process.terminate()
            server.wait_for_line("shutting down")
            client.sendall(body)
            assert f" {status} ".encode() in client.recv(1 << 16).splitlines()[0]
        assert server.process.wait(30) == 0
    finally:
        server.kill()


def test_all_prompts_of_a_request_that_came_before_sigterm_are_answered(llama_path: Path) -> None:
    server = Server("--model", f"llama={llama_path}", "--drain-timeout", "60").start(1)
    body = {"model": "llama", "prompt": ["word " * 300] * 60, "max_tokens": 1}
    status, answer = post_while_it_ends(
        server, "/v1/completions", body, lambda: requests(server, "running", "waiting")
    )
    assert status == 200, answer
    assert len(answer["choices"]) == 60


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_a_shutdown_cuts_off_does_not_claim_to_be_complete(
    long_path: Path, stream: bool
) -> None:
    server = Server("--model", f"llama={long_path}", "--drain-timeout", "0").start(1)
    with ThreadPoolExecutor(8) as threads:
        body = LONG | {"stream": stream}
        asked = [
            threads.submit(server.request, "POST", "/v1/chat/completions", body) for _ in range(8)
        ]
        wait_until(lambda: requests(server, "running") == 8)
        assert server.stop() == 0
        answers = [each.result() for each in asked]
    for status, answer, _ in answers:
        if stream:
            error = json.loads(answer.strip().rpartition("data: ")[2])["error"]
            assert '"finish_reason":"' not in answer and "[DONE]" not in answer
        else:
            error = answer["error"]
            assert status == 503
        assert error["code"] == "closed"
    assert not any("Traceback" in line for line in server.lines)


def test_a_stream_of_any_kind_that_a_shutdown_cuts_off_ends_with_an_error(long_path: Path) -> None:
    server = Server("--model", f"llama={long_path}", "--drain-timeout", "0").start(1)
    ingest = {"content": "A document.", "model_id": "llama"}
    context_id = server.post("/api/v1/contexts/ingest", ingest)["context_id"]
    # Their prompts take long, not their answers: those of some kinds cannot be kept from ending.
    words = "Hello " * 4000
    chat = LONG | {"messages": [{"role": "user", "content": words}], "max_tokens": 1800}
    text = {"model": "llama", "prompt": words, "stream": True}
    bodies = {
        "/v1/chat/completions": chat,
        "/v1/completions": text,
        "/v1/responses": {"model": "llama", "input": words, "stream": True},
        "/v1/messages": chat,
        "/api/v1/generate": text,
        f"/api/v1/contexts/{context_id}/query": {"query": words, "stream": True},
    }
    with ThreadPoolExecutor(len(bodies)) as threads:
        asked = {
            path: threads.submit(server.request, "POST", path, body)
            for path, body in bodies.items()
        }
        wait_until(lambda: requests(server, "running", "waiting") == len(bodies))
        assert server.stop() == 0
    for path, each in asked.items():
        status, answer, _ = each.result()
        assert status == 200, path
        last = json.loads(answer.strip().rpartition("data: ")[2])
        error = last["response"]["error"] if path == "/v1/responses" else last["error"]
        assert "was closed before the request was done" in json.dumps(error), path
    assert not any("Traceback" in line for line in server.lines)


def test_clients_that_leave_at_any_moment_free_everything(long_server: Server) -> None:
    rng = random.Random(5)
    address = urllib.parse.urlsplit(long_server.url)

    def count() -> tuple[int, int]:
        """How many requests there were, and how many of them were cancelled."""
        models = long_server.get("/api/v1/models/cache/stats")["stats"]["models"]
        return sum(m["requests"] for m in models), sum(m["requests_cancelled"] for m in models)

    def all_are_cancelled() -> bool:
        (num, num_cancelled), (before, cancelled_before) = count(), counts_before
        return num - before == num_cancelled - cancelled_before > 0

    def call_and_leave(number: int) -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        body = LONG | {
            "model": ("llama", "qwen")[number % 2],
            "stream": number % 3 != 0,
            "messages": [{"role": "user", "content": f"{number} " * (number * 5 % 200 + 1)}],
        }
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        time.sleep(delays[number])
        if number % 3 and number % 5:
            connection.getresponse().read(20)
        connection.close()

    delays = [rng.choice((0.0, 0.001, 0.01, 0.05)) for _ in range(60)]
    counts_before = count()
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(call_and_leave, range(60)))
    wait_until(all_are_cancelled, "requests of clients that left still run, or ran to their end")
    wait_until_idle(long_server)
    # Nothing holds the models: they can be used, and would be evictable.
    body = {"prompt": "x", "max_tokens": 2}
    assert long_server.post("/api/v1/generate", body)["status"] == "success"


def test_a_server_that_is_to_outlive_its_terminal_does() -> None:
    command = ["nohup", sys.executable, "-m", "snapllm.serve", "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--no-workspace", "--no-demo"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        while "listening on" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_second_signal_ends_the_server_at_once(long_path: Path) -> None:
    server = Server("--model", f"llama={long_path}", "--drain-timeout", "60").start(1)
    connections = [open_stream(server, LONG) for _ in range(20)]
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_line("shutting down")
    server.process.send_signal(signal.SIGTERM)
    # Long before the answers or the time to drain end.
    assert server.process.wait(timeout=20) in (0, 128 + signal.SIGTERM)
    for connection in connections:
        connection.close()


def test_the_drain_has_an_end(long_path: Path) -> None:
    server = Server("--model", f"llama={long_path}", "--drain-timeout", "0.05").start(1)
    connections = [open_stream(server, LONG) for _ in range(20)]
    start = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - start < 15
    assert not any("Traceback" in line for line in server.lines)
    for connection in connections:
        connection.close()


def test_running_out_of_file_descriptors_is_one_line(llama_path: Path) -> None:
    server = Server("--model", f"llama={llama_path}").start(1)
    pid, address = server.process.pid, urllib.parse.urlsplit(server.url)
    num_open = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    with contextlib.ExitStack() as stack:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (num_open + 20, num_open + 20))
        for _ in range(100):
            stack.enter_context(socket.create_connection((address.hostname, address.port)))
        server.wait_for_line("connections have to wait")
        time.sleep(1.5)  # it tries again after a second
    assert server.get("/health")["status"] == "ok"
    assert server.stop() == 0
    assert sum("connections have to wait" in line for line in server.lines) == 1
    said = [line for line in server.lines if "Traceback" in line or "asyncio" in line]
    assert said == [], server.lines


def test_more_clients_than_a_shell_allows_files_are_answered(llama_path: Path) -> None:
    """Each connection takes one, and each request another: those of many at once had none."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 64), most))  # the server's, too
    try:
        server = Server("--model", f"llama={llama_path}")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    server.start(1)
    address = urllib.parse.urlsplit(server.url)
    body = json.dumps({"model": "llama", "prompt": "x", "max_tokens": 2})
    with contextlib.ExitStack() as stack:
        connections = [
            http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
            for _ in range(100)
        ]
        for connection in connections:
            stack.callback(connection.close)
            connection.request("POST", "/v1/completions", body)
        assert {connection.getresponse().status for connection in connections} == {200}
    assert server.stop() == 0


def test_without_a_model_the_demo_answers_under_its_id(demo_server: Server) -> None:
    said = [line for line in demo_server.lines if "demo model" in line]
    assert len(said) == 1
    assert demo_server.get("/health")["models_loaded"] == ["demo"]


def test_no_demo_starts_empty() -> None:

    server = Server("--no-demo").start(0)
    try:
        assert server.get("/health")["models_loaded"] == []
        status, answer, _ = server.request("POST", "/api/v1/generate", {"prompt": "x"})
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "x=/no/such/file.gguf"], "no/such/file"),
        (["--model", "nothing"], "ID=PATH"),
        (["--port", "99999"], "65535"),
    ],
)
def test_a_start_that_cannot_work_ends_with_the_reason(arguments: list[str], words: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "snapllm.serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert words in result.stderr
    assert "listening" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_said(server: Server) -> None:
    port = str(urllib.parse.urlsplit(server.url).port)
    result = subprocess.run(
        [sys.executable, "-m", "snapllm.serve", "--port", port, "--no-demo"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "cannot listen" in result.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_both_loopback_addresses_are_listened_on(long_path: Path, host: str) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = Server("--model", f"m={long_path}", "--host", host).start(1)
    try:
        port = urllib.parse.urlsplit(server.url).port
        for address in ("[::1]", "127.0.0.1"):
            url = f"http://{address}:{port}/v1/models"
            with urllib.request.urlopen(url, timeout=30) as response:
                assert [model["id"] for model in json.load(response)["data"]] == ["m"]
        assert server.get("/health")["status"] == "ok"
        assert server.stop() == 0
    finally:
        server.kill()
