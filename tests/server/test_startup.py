"""What clients find while models are still being loaded: those that the server starts with, and
those that clients load."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from nano_models import make_embedding_model
from PIL import Image
from server_process import Server

import snapllm
from snapllm.protocol.native_listing import ComingModel
from snapllm.server.app import create_app
from snapllm.server.keys import STATE, ServerState
from snapllm.server.options import AppOptions

PROMPT = {"prompt": "Hello", "max_tokens": 2}


@pytest.fixture
def empty() -> Iterator[snapllm.Engine]:
    """An engine without a model."""
    with snapllm.Engine(num_threads=1) as engine:
        yield engine


def coming(model_id: str, kind: Any = "llm") -> ComingModel:
    return ComingModel(id=model_id, type=kind, file_path=f"/{model_id}.gguf", file_bytes=5_000_000)


class Starting:
    """An application that waits for models which the test loads."""

    def __init__(self, client: TestClient[Any, Any], state: ServerState) -> None:
        self.state = state
        self.startup = state.startup
        self._client = client

    async def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        async with self._client.request(method, path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, path: str, **headers: str) -> Any:
        status, body = await self.ask("GET", path, **headers)
        assert status == 200, body
        return body

    async def waiting(self, path: str, body: Any) -> asyncio.Task[tuple[int, Any]]:
        """A request that has come in before a later one is answered."""
        task = asyncio.create_task(self.ask("POST", path, body))
        await asyncio.sleep(0)
        await self.get("/health")
        return task


@contextlib.asynccontextmanager
async def starting(engine: snapllm.Engine, *models: ComingModel) -> AsyncIterator[Starting]:
    app = create_app(engine, AppOptions(aliases=(("gpt", "late"),)))
    app[STATE].startup.announce(models)
    async with TestClient(TestServer(app)) as client:
        yield Starting(client, app[STATE])


def test_models_on_their_way_are_listed_and_found(empty: snapllm.Engine, llama_path: Path) -> None:
    async def run() -> None:
        models = [coming("late"), coming("eyes", "vision"), coming("pix", "diffusion")]
        async with starting(empty, *models) as server:
            ids = ["late", "eyes", "pix"]
            listing = await server.get("/v1/models")
            assert [model["id"] for model in listing["data"]] == ids
            assert all(model["created"] > 1_700_000_000 for model in listing["data"])
            theirs = await server.get("/v1/models", **{"anthropic-version": "2023-06-01"})
            assert [model["id"] for model in theirs["data"]] == ids
            for name in (*ids, "gpt"):
                assert (await server.get(f"/v1/models/{name}"))["id"] == name
            native = await server.get("/api/v1/models")
            assert [model["id"] for model in native["models"]] == ids
            assert {model["state"] for model in native["models"]} == {"loading"}
            assert [model["type"] for model in native["models"]] == ["llm", "vision", "diffusion"]
            # Where requests go that name no model: they wait for the first of its kind.
            assert [model["active"] for model in native["models"]] == [True, False, True]
            assert (native["active_model"], native["active_image_model"]) == ("late", "pix")
            assert native["total_loaded"] == 0
            one = (await server.get("/api/v1/models/gpt"))["model"]
            assert (one["id"], one["state"], one["size_gb"]) == ("late", "loading", 0.005)
            health = await server.get("/health")
            assert (health["models_loaded"], health["active_model"]) == ([], "late")
            assert health["models_loading"] == ["late", "eyes", "pix"]
            # In the engine already, though nobody was told yet: once in each list.
            empty.load(llama_path, "late")
            native = await server.get("/api/v1/models")
            assert [model["id"] for model in native["models"]] == ids
            assert native["models"][0]["state"] == "resident"
            assert (native["active_model"], native["total_loaded"]) == ("late", 1)
            assert (await server.get("/health"))["models_loaded"] == ["late"]
            status, answer = await server.ask("GET", "/v1/models/nobody")
            assert (status, answer["error"]["code"]) == (404, "model_not_found")

    asyncio.run(run())


@pytest.mark.parametrize("name", ["late", "gpt"])
@pytest.mark.parametrize("path", ["switch", "pin"])
def test_what_is_done_with_a_model_waits_for_it(
    empty: snapllm.Engine, llama_path: Path, path: str, name: str
) -> None:
    async def run() -> None:
        async with starting(empty, coming("first"), coming("late")) as server:
            empty.load(llama_path, "first")
            server.startup.settle("first")
            task = await server.waiting(f"/api/v1/models/{path}", {"model_id": name})
            empty.load(llama_path, "late")
            server.startup.settle("late")
            status, answer = await task
            assert (status, answer.get("model")) == (200, "late"), answer
            if path == "switch":
                assert answer["state"] == "resident"
                assert answer["switch_time_ms"] < 1000
                assert empty.active_model == "late"

    asyncio.run(run())


def test_a_model_is_unloaded_once_it_is_there(empty: snapllm.Engine, llama_path: Path) -> None:
    """A load that is cut short would end the server."""

    async def run() -> None:
        async with starting(empty, coming("late")) as server:
            task = await server.waiting("/api/v1/models/unload", {"model_id": "late"})
            empty.load(llama_path, "late")
            server.startup.settle("late")
            assert (await task)[0] == 200
            assert empty.models() == []

    asyncio.run(run())


def test_a_load_takes_neither_the_id_nor_the_place_of_a_model_on_its_way(
    empty: snapllm.Engine, llama_path: Path, qwen_path: Path
) -> None:
    async def run() -> None:
        async with starting(empty, coming("late")) as server:
            wanted = [{"model_id": each, "file_path": str(qwen_path)} for each in ("late", "new")]
            taken, new = [await server.waiting("/api/v1/models/load", each) for each in wanted]
            empty.load(llama_path, "late")
            server.startup.settle("late")
            status, answer = await taken
            assert (status, answer["error"]["code"]) == (400, "invalid_request")
            status, answer = await new
            assert (status, answer["active"]) == (200, False)
            assert empty.active_model == "late"

    asyncio.run(run())


def test_a_request_without_a_model_waits_for_one_of_its_kind(
    empty: snapllm.Engine, llama_path: Path
) -> None:
    async def run() -> None:
        async with starting(empty, coming("pix", "diffusion"), coming("late")) as server:
            task = await server.waiting("/api/v1/generate", PROMPT)
            server.startup.settle("pix")
            await server.get("/health")
            empty.load(llama_path, "late")
            server.startup.settle("late")
            status, answer = await task
            assert (status, answer.get("model")) == (200, "late"), answer

    asyncio.run(run())


def test_a_request_without_a_model_waits_for_one_that_generates(
    empty: snapllm.Engine, llama_path: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        async with starting(empty, coming("bert"), coming("late")) as server:
            task = await server.waiting("/api/v1/generate", PROMPT)
            empty.load(make_embedding_model(tmp_path / "bert.gguf"), "bert")
            server.startup.settle("bert")
            await server.get("/health")
            assert not task.done()
            empty.load(llama_path, "late")
            server.startup.settle("late")
            status, answer = await task
            assert (status, answer.get("model")) == (200, "late"), answer

    asyncio.run(run())


def test_a_question_about_a_picture_waits_for_the_model_that_sees(
    empty: snapllm.Engine, llama_path: Path
) -> None:
    async def run() -> None:
        async with starting(empty, coming("blind"), coming("eyes", "vision")) as server:
            empty.load(llama_path, "blind")
            server.startup.settle("blind")
            file = io.BytesIO()
            Image.new("RGB", (64, 64)).save(file, "PNG")
            images = [base64.b64encode(file.getvalue()).decode()]
            body = {"prompt": "What is this?", "images": images, "max_tokens": 2}
            task = await server.waiting("/api/v1/vision/generate", body)
            empty.load_demo("eyes")
            server.startup.settle("eyes")
            status, answer = await task
            assert (status, answer.get("model")) == (200, "eyes"), answer

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("append", {"content": "More."}),
        ("fork", {"name": "second"}),
        ("promote", {"tier": "hot"}),
        ("query", {"query": "What is it?", "max_tokens": 2}),
    ],
)
def test_a_context_waits_for_its_model(
    empty: snapllm.Engine, llama_path: Path, path: str, body: Any
) -> None:
    async def run() -> None:
        empty.load(llama_path, "late")
        empty.contexts.ingest("A handbook.", "late", name="book")
        empty.unload("late")
        async with starting(empty, coming("late")) as server:
            task = await server.waiting(f"/api/v1/contexts/book/{path}", body)
            assert (await server.get("/api/v1/contexts"))["contexts"][0]["name"] == "book"
            empty.load(llama_path, "late")
            server.startup.settle("late")
            status, answer = await task
            assert status == 200, answer

    asyncio.run(run())


def test_nobody_waits_for_a_model_that_will_not_come(empty: snapllm.Engine) -> None:
    async def run() -> None:
        async with starting(empty, coming("broken"), coming("late")) as server:
            chat = {"model": "broken", "messages": [{"role": "user", "content": "Hi"}]}
            tasks = [
                await server.waiting("/api/v1/models/switch", {"model_id": "late"}),
                await server.waiting("/v1/chat/completions", chat),
            ]
            server.startup.give_up()
            for status, answer in [await task for task in tasks]:
                assert (status, answer["error"]["code"]) == (503, "closed")

    asyncio.run(run())


class HeldLoads:
    """Keeps an engine's loads waiting until the test lets them go on."""

    def __init__(self, engine: snapllm.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self._may_go_on = threading.Event()
        load = engine.load

        def held(*arguments: Any, **options: Any) -> snapllm.Model:
            assert self._may_go_on.wait(30)
            return load(*arguments, **options)

        monkeypatch.setattr(engine, "load", held)

    def let_go(self) -> None:
        self._may_go_on.set()


@pytest.fixture
def held(empty: snapllm.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldLoads]:
    loads = HeldLoads(empty, monkeypatch)
    yield loads
    loads.let_go()


async def until_loading(server: Starting, *ids: str) -> None:
    """Waits until just these are being loaded."""
    for _ in range(500):
        if (await server.get("/health"))["models_loading"] == list(ids):
            return
        await asyncio.sleep(0.01)
    raise AssertionError((await server.get("/health"))["models_loading"])


def test_a_model_that_a_client_loads_is_listed_and_waited_for(
    empty: snapllm.Engine, held: HeldLoads, llama_path: Path
) -> None:
    async def run() -> None:
        async with starting(empty) as server:
            body = {"model_id": "late", "file_path": str(llama_path)}
            loads = [await server.waiting("/api/v1/models/load", body)]
            await until_loading(server, "late")
            [entry] = (await server.get("/api/v1/models"))["models"]
            assert (entry["id"], entry["state"], entry["type"]) == ("late", "loading", "llm")
            assert entry["size_gb"] == round(llama_path.stat().st_size / 1e9, 6)
            assert [m["id"] for m in (await server.get("/v1/models"))["data"]] == ["late"]
            loads.append(await server.waiting("/api/v1/models/load", body))
            chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
            requests = [
                await server.waiting("/v1/chat/completions", chat | {"model": "gpt"}),
                await server.waiting("/api/v1/generate", PROMPT),
                await server.waiting("/api/v1/models/switch", {"model_id": "late"}),
            ]
            await until_loading(server, "late")  # once, for two loads of it
            assert not any(task.done() for task in (*loads, *requests))
            held.let_go()
            for status, answer in [await task for task in (*loads, *requests)]:
                assert status == 200, answer
            await until_loading(server)
            [entry] = (await server.get("/api/v1/models"))["models"]
            assert (entry["id"], entry["state"]) == ("late", "resident")

    asyncio.run(run())


def test_a_load_that_fails_leaves_the_list_and_nobody_waiting(
    empty: snapllm.Engine, held: HeldLoads
) -> None:
    async def run() -> None:
        async with starting(empty) as server:
            body = {"model_id": "late", "file_path": __file__}
            load = await server.waiting("/api/v1/models/load", body)
            await until_loading(server, "late")
            request = await server.waiting("/api/v1/generate", PROMPT | {"model": "late"})
            held.let_go()
            status, answer = await load
            assert (status, answer["error"]["code"]) == (400, "invalid_model")
            status, answer = await request
            assert (status, answer["error"]["code"]) == (404, "model_not_found")
            assert (await server.get("/api/v1/models"))["models"] == []

    asyncio.run(run())


def test_a_model_that_is_there_answers_on_while_it_is_loaded_again(
    empty: snapllm.Engine, llama_path: Path, qwen_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        empty.load(llama_path, "there")
        held = HeldLoads(empty, monkeypatch)
        async with starting(empty) as server:
            load = "/api/v1/models/load"
            again = await server.waiting(load, {"model_id": "there", "file_path": str(llama_path)})
            other = await server.waiting(load, {"model_id": "other", "file_path": str(qwen_path)})
            await until_loading(server, "other")
            assert (await server.ask("POST", "/api/v1/generate", PROMPT))[0] == 200
            held.let_go()
            assert [(await task)[0] for task in (again, other)] == [200, 200]

    asyncio.run(run())


def test_a_load_that_has_not_begun_is_unloaded_at_its_end(
    empty: snapllm.Engine, held: HeldLoads, llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_tried, unload_now = threading.Event(), empty.unload

    def noted(model_id: str) -> None:
        try:
            unload_now(model_id)
        finally:
            was_tried.set()

    monkeypatch.setattr(empty, "unload", noted)

    async def run() -> None:
        async with starting(empty) as server:
            body = {"model_id": "late", "file_path": str(llama_path)}
            load = await server.waiting("/api/v1/models/load", body)
            await until_loading(server, "late")
            unload = await server.waiting("/api/v1/models/unload", {"model_id": "late"})
            # Once the load has begun, it would be cut short.
            assert await asyncio.to_thread(was_tried.wait, 30)
            held.let_go()
            assert (await load)[0] == 200
            assert (await unload)[0] == 200
            assert (await server.get("/api/v1/models"))["models"] == []

    asyncio.run(run())


def test_who_waits_for_a_clients_load_is_told_when_the_server_ends(
    empty: snapllm.Engine, held: HeldLoads, llama_path: Path
) -> None:
    async def run() -> None:
        async with starting(empty) as server:
            body = {"model_id": "late", "file_path": str(llama_path)}
            load = await server.waiting("/api/v1/models/load", body)
            await until_loading(server, "late")
            request = await server.waiting("/api/v1/generate", PROMPT | {"model": "late"})
            server.state.give_up()
            status, answer = await request
            assert (status, answer["error"]["code"]) == (503, "closed")
            held.let_go()
            await load

    asyncio.run(run())


def test_the_demo_that_nobody_asked_for_gives_its_role_to_the_first_model_loaded(
    llama_path: Path, qwen_path: Path, tmp_path: Path
) -> None:
    embedder = make_embedding_model(tmp_path / "embedder.gguf")

    def load(server: Server, model_id: str, path: Path) -> bool:
        body = {"model_id": model_id, "file_path": str(path)}
        return bool(server.post("/api/v1/models/load", body)["active"])

    server = Server("--no-workspace").start(1)
    assert not load(server, "vectors", embedder)
    assert load(server, "mine", llama_path)
    server.line_with("switched to mine")
    assert not load(server, "other", qwen_path)
    assert server.get("/health")["active_model"] == "mine"
    server.stop()
    chosen = Server("--no-workspace").start(1)
    chosen.post("/api/v1/models/switch", {"model_id": "demo"})
    assert not load(chosen, "mine", llama_path)
    chosen.stop()


def test_a_server_that_listens_has_its_models(
    llama_path: Path, qwen_path: Path, image_files: dict[str, Path]
) -> None:
    server = Server(
        *("--model", f"second={qwen_path}", "--model", f"first={llama_path}"),
        *("--model", f"pix={image_files['diffusion_model']}"),
        *("--part", f"pix.llm={image_files['llm']}", "--part", f"pix.taesd={image_files['taesd']}"),
    ).start(0)
    try:
        ids = [model["id"] for model in server.get("/v1/models")["data"]]
        assert ids == ["second", "first", "pix"]
        native = server.get("/api/v1/models")
        assert [model["type"] for model in native["models"]] == ["llm", "llm", "diffusion"]
        assert (native["active_model"], native["active_image_model"]) == ("second", "pix")
        assert server.post("/api/v1/models/unload", {"model_id": "second"})["status"] == "success"
        assert server.post("/api/v1/models/switch", {"model_id": "first"})["state"] == "resident"
        assert server.post("/api/v1/models/switch", {"model_id": "pix"})["model"] == "pix"
        assert server.get("/health")["models_loaded"] == ["first", "pix"]
        assert server.stop() == 0
        assert not any("Traceback" in line for line in server.lines)
    finally:
        server.process.kill()
