"""OpenAI's embeddings endpoint."""

from __future__ import annotations

from functools import partial

import msgspec
from aiohttp import web

from snapllm.protocol.openai_embeddings import embeddings_object, parse_embeddings
from snapllm.server.bodies import QUICK_BYTES, read_body
from snapllm.server.keys import engine_of, model_ready, resolve_model, threads_of
from snapllm.server.middleware import json_response
from snapllm.server.request_facts import facts_of


async def embeddings(request: web.Request) -> web.Response:
    """POST /v1/embeddings"""
    parsed = await read_body(request, parse_embeddings)
    model_id = resolve_model(request, parsed.request.model)
    await model_ready(request, model_id)
    wanted = msgspec.structs.replace(parsed.request, model=model_id)
    found = await engine_of(request).runner.embeddings.arun(wanted)
    facts_of(request).logged = {"model": model_id, "prompt_tokens": found.num_tokens}
    encode = partial(
        embeddings_object,
        parsed.request.model,
        found.vectors,
        found.num_tokens,
        as_base64=parsed.as_base64,
    )
    if sum(map(len, found.vectors)) <= QUICK_BYTES:
        return json_response(encode())
    return json_response(await threads_of(request).parsing.run(encode))


def add_routes(app: web.Application) -> None:
    """Adds the endpoint."""
    app.router.add_post("/v1/embeddings", embeddings)
