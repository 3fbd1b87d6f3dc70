"""The Context API as the specification describes it, over a real socket."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import openai
import pytest
from model_files import CHATML_TEMPLATE
from nano_models import make_nano_model
from server_process import Server

import snapllm

HANDBOOK = (
    "The vacation policy is 20 days of paid vacation. "
    "The remote policy is two days a week from home. "
    "The travel policy is economy class below six hours."
)
API = "/api/v1/contexts"


def ingest(server: Server, content: str = HANDBOOK, **fields: Any) -> dict[str, Any]:
    body = {"content": content, "model_id": "demo", **fields}
    answer: dict[str, Any] = server.post(f"{API}/ingest", body)
    return answer


def query(server: Server, context_id: str, text: str) -> dict[str, Any]:
    answer: dict[str, Any] = server.post(f"{API}/{context_id}/query", {"query": text})
    return answer


@pytest.fixture
def context_id(demo_server: Server) -> Iterator[str]:
    context_id = ingest(demo_server)["context_id"]
    yield context_id
    demo_server.request("DELETE", f"{API}/{context_id}")


def test_ingest_answers_with_the_specified_fields(demo_server: Server) -> None:
    answer = ingest(demo_server, name="handbook", ttl_seconds=60)
    assert answer["status"] == "success"
    assert answer["context_id"].startswith("ctx_")
    assert answer["token_count"] > 30
    assert answer["storage_size_mb"] > 0
    assert answer["tier"] == "hot"
    assert answer["ingest_time_ms"] > 0
    found = demo_server.get(f"{API}/{answer['context_id']}")
    assert (found["name"], found["ttl_seconds"]) == ("handbook", 60)
    status, deleted, _ = demo_server.request("DELETE", f"{API}/{answer['context_id']}")
    assert (status, deleted["status"]) == (200, "success")


def test_a_query_reads_the_document_from_the_cache(demo_server: Server, context_id: str) -> None:
    answer = query(demo_server, context_id, "What is the vacation policy?")
    assert answer["status"] == "success"
    assert answer["context_id"] == context_id
    assert "20 days" in answer["response"]
    assert answer["cache_hit"] is True
    usage = answer["usage"]
    assert usage["context_tokens"] == usage["cached_tokens"] > 30
    assert usage["query_tokens"] > 0
    assert usage["generated_tokens"] > 0
    assert answer["latency_ms"] > 0


def test_the_answer_is_that_of_a_plain_chat(demo_server: Server, context_id: str) -> None:
    question = "What is the remote policy?"
    answer = query(demo_server, context_id, question)
    client = openai.OpenAI(base_url=demo_server.url + "/v1", api_key="x")
    messages: list[Any] = [{"role": "user", "content": question}]
    whole = client.chat.completions.create(
        model="demo",
        messages=[{"role": "system", "content": HANDBOOK}, *messages],
        temperature=0,
    )
    through_alias = client.chat.completions.create(
        model=f"demo@{context_id}", messages=messages, temperature=0
    )
    assert whole.choices[0].message.content == answer["response"]
    assert through_alias.choices[0].message.content == answer["response"]
    assert through_alias.usage is not None
    assert through_alias.usage.prompt_tokens_details is not None
    cached = through_alias.usage.prompt_tokens_details.cached_tokens
    assert cached is not None and cached >= answer["usage"]["context_tokens"]


def test_every_tier_answers_alike_and_moves_the_bytes(demo_server: Server, context_id: str) -> None:
    expected = query(demo_server, context_id, "What is the travel policy?")["response"]
    for move, tier in (
        ("demote", "warm"),
        ("demote", "cold"),
        ("promote", "warm"),
        ("promote", "hot"),
        ("demote", "cold"),
        ("promote", "hot"),
    ):
        moved = demo_server.post(f"{API}/{context_id}/{move}", {"tier": tier})
        assert moved["tier"] == tier
        assert demo_server.get(f"{API}/{context_id}")["tier"] == tier
        listed = demo_server.get(f"{API}?tier={tier}")["contexts"]
        assert context_id in [c["context_id"] for c in listed]
        assert (moved["memory_mb"] > 0) == (tier != "cold")
        assert moved["disk_mb"] > 0
        answer = query(demo_server, context_id, "What is the travel policy?")
        assert (answer["response"], answer["cache_hit"]) == (expected, True)


def test_lists_and_statistics_count_what_there_is(demo_server: Server, context_id: str) -> None:
    assert context_id in [
        c["context_id"] for c in demo_server.get(f"{API}?model_id=demo")["contexts"]
    ]
    assert demo_server.get(f"{API}?model_id=other")["contexts"] == []
    before = demo_server.get(f"{API}/stats")["stats"]
    query(demo_server, context_id, "What is the vacation policy?")
    after = demo_server.get(f"{API}/stats")["stats"]
    assert after["cache_hits"] == before["cache_hits"] + 1
    assert after["total_contexts"] >= 1
    assert (
        after["hot_contexts"] + after["warm_contexts"] + after["cold_contexts"]
        == after["total_contexts"]
    )
    assert after["total_memory_mb"] > 0
    assert 0 < after["hit_rate"] <= 1
    assert after["avg_query_latency_ms"] > 0


def test_appending_and_forking(demo_server: Server, context_id: str) -> None:
    forked = demo_server.post(f"{API}/{context_id}/fork", {"name": "second"})
    appended = demo_server.post(
        f"{API}/{forked['context_id']}/append",
        {"content": "The parking policy is free parking for all employees."},
    )
    assert appended["context_id"] == forked["context_id"]
    assert appended["cached_tokens"] > 0
    answer = query(demo_server, forked["context_id"], "What is the parking policy?")
    assert "free parking" in answer["response"]
    demo_server.request("DELETE", f"{API}/{forked['context_id']}")
    assert query(demo_server, context_id, "What is the vacation policy?")["cache_hit"] is True


def test_ingest_and_query_stream(demo_server: Server) -> None:
    def events(path: str, body: Any) -> list[Any]:
        import json

        status, text, _ = demo_server.request("POST", path, body)
        assert status == 200
        data = [line.removeprefix("data: ") for line in text.split("\n") if line[:5] == "data:"]
        assert data.pop() == "[DONE]"
        return [json.loads(line) for line in data]

    body = {"content": HANDBOOK * 8, "model_id": "demo", "stream": True}
    *steps, result = events(f"{API}/ingest", body)
    assert (result["type"], result["done"]) == ("result", True)
    assert not any(step["done"] for step in steps)
    assert all(0 <= s["computed_tokens"] <= s["token_count"] for s in steps)
    context_id = result["context_id"]
    body = {"query": "What is the vacation policy?", "stream": True}
    *pieces, end = events(f"{API}/{context_id}/query", body)
    assert [piece["done"] for piece in pieces] == [False] * len(pieces)
    assert end["done"] is True
    assert end["usage"]["context_tokens"] == result["token_count"]
    whole = query(demo_server, context_id, "What is the vacation policy?")
    assert "".join(piece["token"] for piece in pieces) == whole["response"]
    # Whoever reads the last event only has the same as without a stream.
    assert end.keys() == whole.keys() | {"token", "done"}
    assert end["response"] == whole["response"]
    demo_server.request("DELETE", f"{API}/{context_id}")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/ctx_000000000000/query", {"query": "x"}, 404, "context_not_found"),
        ("GET", "/ctx_000000000000", None, 404, "context_not_found"),
        ("DELETE", "/ctx_000000000000", None, 404, "context_not_found"),
        ("POST", "/ctx_000000000000/promote", {"tier": "hot"}, 404, "context_not_found"),
        ("POST", "/ingest", {"model_id": "demo"}, 400, "invalid_request"),
        ("POST", "/ingest", {"content": "", "model_id": "demo"}, 400, "invalid_request"),
        ("POST", "/ingest", {"content": "x", "model_id": "nope"}, 404, "model_not_found"),
        (
            "POST",
            "/ingest",
            {"content": "x", "model_id": "demo", "ttl_seconds": 0},
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/ingest",
            {"content": "many words " * 20_000, "model_id": "demo"},
            400,
            "context_length_exceeded",
        ),
        ("GET", "?tier=lukewarm", None, 400, "invalid_request"),
    ],
)
def test_bad_requests_are_explained(
    demo_server: Server, method: str, path: str, body: Any, status: int, code: str
) -> None:
    got, answer, _ = demo_server.request(method, API + path, body)
    assert (got, answer["error"]["code"]) == (status, code)


@pytest.mark.parametrize("name", [".", "..", "stats", "ingest", "import", "a\nb", "a\x85"])
def test_a_name_that_a_client_takes_for_a_step_of_the_path_is_refused(
    demo_server: Server, context_id: str, name: str
) -> None:
    ingested = {"content": HANDBOOK, "model_id": "demo", "name": name}
    for path, body in (("ingest", ingested), (f"{context_id}/fork", {"name": name})):
        status, answer, _ = demo_server.request("POST", f"{API}/{path}", body)
        assert (status, answer["error"]["param"]) == (400, "name")


def test_without_a_workspace_nothing_is_stored_and_a_failed_demotion_changes_nothing() -> None:
    server = Server("--no-workspace").start(1)
    try:
        context_id = ingest(server)["context_id"]
        path = f"{API}/{context_id}"
        before = server.get(path)
        assert (before["tier"], before["is_stored"], before["disk_mb"]) == ("hot", False, 0)
        status, answer, _ = server.request("POST", f"{path}/demote", {"tier": "cold"})
        assert (status, answer["error"]["code"]) == (409, "no_workspace")
        assert answer["error"]["param"] == "tier"
        assert "--workspace" in answer["error"]["message"]
        assert server.get(path) == before
    finally:
        assert server.stop() == 0


def test_a_context_that_ram_cannot_hold_is_refused_with_the_option_that_is_too_small() -> None:
    server = Server("--no-workspace", "--kv-ram", "1").start(1)
    try:
        body = {"content": HANDBOOK * 20, "model_id": "demo"}
        status, answer, _ = server.request("POST", f"{API}/ingest", body)
        assert (status, answer["error"]["code"]) == (413, "context_too_large")
        assert answer["error"]["param"] == "content"
        for words in ("at most 1.00 MB", "--kv-ram", "--workspace"):
            assert words in answer["error"]["message"]
        assert server.get(API)["contexts"] == []
        status, text, _ = server.request("POST", f"{API}/ingest", body | {"stream": True})
        assert "context_too_large" in (text if status == 200 else text["error"]["code"])
    finally:
        assert server.stop() == 0


def test_a_context_expires(demo_server: Server) -> None:
    context_id = ingest(demo_server, ttl_seconds=1)["context_id"]
    time.sleep(1.1)
    status, answer, _ = demo_server.request("GET", f"{API}/{context_id}")
    assert (status, answer["error"]["code"]) == (404, "context_not_found")


def test_a_request_says_what_it_reused_and_what_ended_it(demo_server: Server) -> None:
    prompt = "Say after me: one two three four five six seven eight nine ten"
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": 1, "raw": True}
    demo_server.post("/api/v1/generate", body)
    body["prompt"] = prompt.replace("nine", "zebra")
    status, _, headers = demo_server.request("POST", "/api/v1/generate", body)
    assert status == 200
    assert "prompt=" in headers["x-snapllm-cache"]
    [report] = demo_server.get(f"/api/v1/requests/{headers['x-request-id']}/cache")["answers"]
    assert report["cached_tokens"] > 0
    assert report["restore_ms"] > 0
    assert report["cached_tokens"] + report["computed_tokens"] == report["prompt_tokens"]
    assert (report["differs_at"], report["cached_text"]) == (report["cached_tokens"], " n")
    _, _, headers = demo_server.request("POST", "/api/v1/generate", body)
    [repeated] = demo_server.get(f"/api/v1/requests/{headers['x-request-id']}/cache")["answers"]
    assert repeated["computed_tokens"] == 1
    assert [repeated[name] for name in ("differs_at", "cached_token", "cached_text")] == [None] * 3


def test_a_request_to_a_context_says_what_was_cached_where_it_differs(
    demo_server: Server, context_id: str
) -> None:
    for question in ("What is the vacation policy?", "Who is the vacation manager?"):
        body = {
            "model": f"demo@{context_id}",
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 2,
        }
        _, _, headers = demo_server.request("POST", "/v1/chat/completions", body)
    [report] = demo_server.get(f"/api/v1/requests/{headers['x-request-id']}/cache")["answers"]
    assert report["differs_at"] >= report["cached_tokens"] > 0
    assert report["cached_text"] == "What"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_contexts_survive_a_restart(tmp_path: Path, number: signal.Signals) -> None:
    first = Server("--workspace", str(tmp_path / "w")).start(1)
    context = ingest(first, name="handbook")
    expected = query(first, context["context_id"], "What is the vacation policy?")
    first.process.send_signal(number)
    first.process.wait(30)
    second = Server("--workspace", str(tmp_path / "w")).start(1)
    try:
        found = second.get(f"{API}/{context['context_id']}")
        assert (found["name"], found["tier"]) == ("handbook", "cold")
        answer = query(second, context["context_id"], "What is the vacation policy?")
        assert (answer["response"], answer["cache_hit"]) == (expected["response"], True)
        status = Server("--workspace", str(tmp_path / "w")).process.wait(30)
        assert status == 1, "a second server took the same workspace"
    finally:
        assert second.stop() == 0


def test_servers_that_run_beside_each_other_each_keep_their_contexts(tmp_path: Path) -> None:
    """Without being told where."""
    environ = {"XDG_DATA_HOME": str(tmp_path)}
    with mock.patch.dict(os.environ, environ):
        servers = [Server().start(1) for _ in range(2)]
    taken = servers[1].line_with(f"the workspace {tmp_path / 'snapllm'} is in use")
    instead = servers[1].line_with(f"is kept in {tmp_path / 'snapllm-2'} instead")
    assert servers[1].lines.index(taken) < servers[1].lines.index(instead)
    contexts = [ingest(server, name=f"of {i}")["context_id"] for i, server in enumerate(servers)]
    for server, context in zip(servers, contexts, strict=True):
        server.post(f"{API}/{context}/demote", {"tier": "cold"})
        assert [each["context_id"] for each in server.get(API)["contexts"]] == [context]
        assert server.stop() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snapllm", "snapllm-2"]
    with mock.patch.dict(os.environ, environ):
        again = Server().start(1)
    assert again.get(f"{API}/{contexts[0]}")["tier"] == "cold"
    assert again.stop() == 0


def test_the_command_line_lists_and_moves_contexts(demo_server: Server, tmp_path: Path) -> None:
    def run(*arguments: str, given: str = "") -> str:
        command = [sys.executable, "-m", "snapllm", "contexts", "--url", demo_server.url]
        done = subprocess.run(
            [*command, *arguments], input=given, capture_output=True, text=True, check=True
        )
        return done.stdout

    (tmp_path / "doc.txt").write_text(HANDBOOK)
    context_id = run("ingest", str(tmp_path / "doc.txt"), "--model", "demo").split(":")[0]
    assert context_id in run()
    assert run("move", context_id, "cold").strip() == "cold"
    assert "20 days" in run("query", context_id, "What is the vacation policy?")
    assert "cache_hits" in run("stats")
    fork_id = run("fork", context_id, "--name", "copy", "--ttl", "0").split(":")[0]
    run("append", fork_id, "-", given="The password of the vault is 1234. ünd")
    fork = demo_server.get(f"{API}/{fork_id}")
    assert (fork["name"], fork["expires_at"]) == ("copy", None)
    assert fork["token_count"] > demo_server.get(f"{API}/{context_id}")["token_count"]
    run("export", fork_id, str(tmp_path / "c.snapctx"))
    imported = run("import", str(tmp_path / "c.snapctx"), "--ttl", "2h").split(":")[0]
    assert demo_server.get(f"{API}/{imported}")["ttl_seconds"] == 7200
    for each in (fork_id, imported):
        run("delete", each)
    assert "deleted" in run("delete", context_id)
    assert context_id not in run("list")


def test_a_question_that_another_model_file_answers_counts_its_tokens(tmp_path: Path) -> None:
    old = make_nano_model(tmp_path / "old.gguf")
    template = "{{ 'The rules are these. ' }}" + CHATML_TEMPLATE
    new = make_nano_model(tmp_path / "new.gguf", seed=2, template=template)
    server = Server("--model", f"demo={old}", "--no-workspace").start(1)
    try:
        before = ingest(server)
        server.post("/api/v1/models/unload", {"model_id": "demo"})
        server.post("/api/v1/models/load", {"model_id": "demo", "file_path": str(new)})
        answer = query(server, before["context_id"], "What is the travel policy?")
        after = server.get(f"{API}/{before['context_id']}")
        assert answer["usage"]["context_tokens"] == after["token_count"] > before["token_count"]
        assert answer["usage"]["query_tokens"] > 0 and answer["cache_hit"] is False
    finally:
        assert server.stop() == 0


def test_an_import_that_is_too_long_is_refused_without_a_field_that_it_has_not(
    tmp_path: Path,
) -> None:
    path, file = make_nano_model(tmp_path / "demo.gguf"), tmp_path / "c.snapctx"
    with snapllm.Engine(num_threads=1) as engine:
        engine.load(path)
        engine.contexts.export_file(engine.contexts.ingest(HANDBOOK).record.id, file)
    server = Server("--model", f"demo={path}", "--context-size", "64", "--no-workspace").start(1)
    try:
        status, answer, _ = server.request("POST", f"{API}/import", file.read_bytes())
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert answer["error"]["param"] is None
    finally:
        assert server.stop() == 0


def test_a_look_at_a_file_sends_nothing_of_it(demo_server: Server, context_id: str) -> None:
    """HEAD: a body would be taken for the beginning of the next answer."""
    connection = http.client.HTTPConnection(demo_server.url.removeprefix("http://"), timeout=60)
    try:
        sizes = []
        for method in ("HEAD", "GET", "GET"):
            connection.request(method, f"{API}/{context_id}/export")
            response = connection.getresponse()
            sizes.append((int(response.headers["Content-Length"]), len(response.read())))
    finally:
        connection.close()
    [looked, *sent] = sizes
    assert looked[1] == 0 < looked[0]
    assert sent == [(looked[0], looked[0])] * 2


def test_a_context_is_shipped_as_a_file(
    demo_server: Server, context_id: str, tmp_path: Path
) -> None:
    path = tmp_path / "handbook.snapctx"
    run = "import sys; from snapllm.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "contexts", "--url", demo_server.url]
    subprocess.run([*command, "export", context_id, str(path)], check=True, timeout=60)
    expected = query(demo_server, context_id, "What is the vacation policy?")["response"]
    demo_server.request("DELETE", f"{API}/{context_id}")
    subprocess.run([*command, "import", str(path), "--name", "copy"], check=True, timeout=60)
    answer = query(demo_server, "copy", "What is the vacation policy?")
    assert answer["response"] == expected and answer["cache_hit"] is True
    data = path.read_bytes()
    _, kept, _ = demo_server.request("POST", f"{API}/import?ttl_seconds=&name=&model_id=", data)
    found = demo_server.get(f"{API}/{kept['context_id']}")
    assert (found["ttl_seconds"], found["model_id"]) == (86_400, "demo")
    for name in ("copy", kept["context_id"]):
        demo_server.request("DELETE", f"{API}/{name}")
    status, body, _ = demo_server.request("POST", f"{API}/import", b"no such file")
    assert (status, body["error"]["code"]) == (400, "invalid_request")
    status, body, _ = demo_server.request("POST", f"{API}/import?ttl_seconds=soon", b"")
    assert (status, body["error"]["param"]) == (400, "ttl_seconds")
    assert demo_server.request("GET", f"{API}/none/export")[0] == 404
