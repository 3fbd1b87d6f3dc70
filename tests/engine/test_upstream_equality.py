"""Greedy answers equal those of llama.cpp's own server, token by token.

How to get it: see `upstream`.
"""

from __future__ import annotations

import json
import random
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import pytest
from nano_models import Architecture, make_nano_model
from ties import decided_tokens
from upstream import post, serving, upstream_binary

import snapllm
from snapllm.engine import demo_model_path

NUM_TOKENS = 96


@pytest.fixture(scope="module")
def upstream_server() -> Path:
    return upstream_binary()


def prompts_of(model: snapllm.Model) -> list[list[int]]:
    """Short, long, and longer than one physical batch."""
    rng = random.Random(8)
    size = model.info.vocab_size
    texts = ["Hello", "The capital of France is", "1, 2, 3, 4,"]
    lengths = (1, 2, 31, 200, 512, 513, 1300)
    return [model.tokenize(text) for text in texts] + [
        [rng.randrange(min(size, 250)) for _ in range(length)] for length in lengths
    ]


@pytest.mark.parametrize("name", ["demo", *get_args(Architecture)])
def test_the_tokens_are_upstreams(upstream_server: Path, tmp_path: Path, name: str) -> None:
    path = demo_model_path()
    if name != "demo":
        path = make_nano_model(tmp_path / "m.gguf", name, seed=1)
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path, context_size=2048)
        prompts = prompts_of(model)
        ours = [
            decided_tokens(model, prompt, max_tokens=NUM_TOKENS, ignore_eos=True)
            for prompt in prompts
        ]
        with serving(upstream_server, model, tmp_path / "log") as url:
            for prompt, tokens in zip(prompts, ours, strict=True):
                body = {
                    "prompt": prompt,
                    "n_predict": NUM_TOKENS,
                    "temperature": 0,
                    "ignore_eos": True,
                    "return_tokens": True,
                    "cache_prompt": False,
                }
                assert post(url + "/completion", body)["tokens"][: len(tokens)] == tokens
    assert len({tuple(tokens) for tokens in ours}) > 5
    assert sum(len(tokens) for tokens in ours) > NUM_TOKENS


def test_the_demos_chats_are_upstreams(upstream_server: Path, tmp_path: Path) -> None:
    path = demo_model_path()
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get weather for a location",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string"}},
                "required": ["location"],
            },
        },
    }
    cases: list[tuple[str, dict[str, Any]]] = [
        ("Hello!", {}),
        ("Count to 5", {}),
        ("What's the weather in Paris?", {"tools": [tool]}),
        ("What is 27 + 45?", {"thinking": True}),
    ]
    with snapllm.Engine(num_threads=1) as engine, ExitStack() as stack:
        model = engine.load(path, context_size=2048)
        url = stack.enter_context(serving(upstream_server, model, tmp_path / "log"))
        for text, options in cases:
            ours = model.chat(text, temperature=0, max_tokens=200, **options)
            body: dict[str, Any] = {
                "messages": [{"role": "user", "content": text}],
                "temperature": 0,
                "max_tokens": 200,
                "cache_prompt": False,
                "chat_template_kwargs": {"enable_thinking": "thinking" in options},
            }
            if "tools" in options:
                body["tools"] = options["tools"]
            answer = post(url + "/v1/chat/completions", body)
            message = answer["choices"][0]["message"]
            assert (message["content"] or "") == ours.content
            assert (message.get("reasoning_content") or "").strip() == ours.reasoning.strip()
            assert answer["usage"]["prompt_tokens"] == ours.usage.num_prompt_tokens
            assert answer["usage"]["completion_tokens"] == ours.usage.num_generated_tokens
            calls = [
                (call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in message.get("tool_calls") or []
            ]
            assert calls == [(call.name, json.loads(call.arguments)) for call in ours.tool_calls]


def test_what_is_filled_in_is_upstreams(upstream_server: Path, tmp_path: Path) -> None:
    path = make_nano_model(tmp_path / "fim.gguf", fills_in=True)
    prefix, suffix = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))"
    options: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path, context_size=2048)
        ours = model.generate(prefix, suffix=suffix, max_tokens=NUM_TOKENS, **options)
        body = {"input_prefix": prefix, "input_suffix": suffix, "n_predict": NUM_TOKENS, **options}
        with serving(upstream_server, model, tmp_path / "log") as url:
            assert post(url + "/infill", body)["content"] == ours.text
