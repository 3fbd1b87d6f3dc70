"""OpenAI's endpoints."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from snapllm._readers import fold_chat
from snapllm._runner import Answer
from snapllm.errors import SnapLLMError
from snapllm.outputs import ChatEvent, Finish
from snapllm.params import ChatRequest
from snapllm.protocol import anthropic_models, openai
from snapllm.protocol.error_codes import api_error
from snapllm.server.answers import (
    answering,
    collect_all,
    merge,
    naming_grammar,
    usage_so_far,
    written,
)
from snapllm.server.bodies import read_body
from snapllm.server.keys import (
    OPTIONS,
    cache_namespace_of,
    engine_of,
    prepare,
    resolve_model,
    until_loaded,
)
from snapllm.server.listing import listed_model, listed_models
from snapllm.server.middleware import json_response, note_answers
from snapllm.server.sse import DONE, EventStream, event_stream, stream_response


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions"""
    default = request.app[OPTIONS].default_max_tokens
    parsed = await read_body(request, partial(openai.parse_chat, default_max_tokens=default))
    chat = await prepare(request, parsed.request)
    encoder = openai.Encoder(
        parsed.request.model,
        parsed.custom_tools,
        has_functions=parsed.has_functions,
        include_usage=parsed.include_usage,
        has_logprobs=parsed.request.sampling.num_logprobs >= 0,
        shown_stops=parsed.shown_stops,
    )
    with naming_grammar(parsed.grammar_field):
        answers = await engine_of(request).runner.start_chat(chat, stream=parsed.stream)
    with answering(request, chat.model, answers):
        if not parsed.stream:
            results = [fold_chat(events) for events in await collect_all(answers)]
            note_answers(request, chat.model, results)
            write = partial(encoder.response, results)
            return json_response(await written(request, results, write))
        async with event_stream(request) as stream:
            finishes = await _send_answers(stream, answers, encoder, parsed)
            note_answers(request, chat.model, finishes)
        return stream_response(request)


async def _send_answers(
    stream: EventStream,
    answers: list[Answer[ChatEvent]],
    encoder: openai.Encoder,
    parsed: openai.Parsed,
) -> list[Finish]:
    """Sends the answers as they come; returns the ends of those that came to one, in order."""
    begun: set[int] = set()
    finishes: dict[int, Finish] = {}
    try:
        async for index, events in merge(answers):
            if isinstance(events[-1], Finish):
                finishes[index] = events[-1]
            if parsed.has_running_usage:
                encoder.count(usage_so_far([answers]))
            # Not before the prompt is computed: clients take the first chunk for the first token.
            chunks = [] if index in begun else [encoder.first_chunk(index)]
            begun.add(index)
            chunks += [chunk for event in events for chunk in encoder.chunks(index, event)]
            if len(finishes) == len(answers):
                # The end goes out with the last chunk: one write, one packet.
                if parsed.include_usage:
                    chunks.append(encoder.usage_chunk(_in_order(finishes)))
                chunks.append(DONE)
            await stream.send(chunks)
    except SnapLLMError as error:
        await stream.fail(api_error(error))
    return _in_order(finishes)


def _in_order(finishes: dict[int, Finish]) -> list[Finish]:
    return [finishes[index] for index in sorted(finishes)]


def _is_anthropics(request: web.Request) -> bool:
    """Whether a client of Anthropic's asks, which shares the paths of the models."""
    return "anthropic-version" in request.headers


async def list_models(request: web.Request) -> web.Response:
    """GET /v1/models"""
    models = listed_models(request)
    if _is_anthropics(request):
        query = anthropic_models.read_list_query(request.query)
        return json_response(anthropic_models.models_object(models, query))
    return json_response(openai.models_object(models))


async def get_model(request: web.Request) -> web.Response:
    """GET /v1/models/{id}, of any name that a request may have as its model"""
    name = request.match_info["model_id"]
    model_id = resolve_model(request, name)
    model = next((each for each in listed_models(request) if each.id == model_id), None)
    if model is None:
        await until_loaded(request, model_id)
        engine, namespace = engine_of(request), cache_namespace_of(request)
        chat = ChatRequest(model=model_id, messages=[], cache_namespace=namespace)
        model = listed_model(engine.model(engine.runner.resolve(chat).model).info)
    protocol = anthropic_models if _is_anthropics(request) else openai
    return json_response(protocol.model_object(model._replace(id=name)))


def add_routes(app: web.Application) -> None:
    """Adds OpenAI's endpoints."""
    app.router.add_post("/v1/chat/completions", chat_completions)
    app.router.add_get("/v1/models", list_models)
    app.router.add_get("/v1/models/{model_id:.+}", get_model)
