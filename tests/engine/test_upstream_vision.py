"""Greedy answers to images equal those of llama.cpp's own server, token by token.

How to get it: see `upstream`.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nano_models import Architecture, make_nano_model
from nano_projectors import Projector, make_nano_projector
from PIL import Image
from upstream import post, serving, upstream_binary

import snapllm
from snapllm._pump import OutputIterator
from snapllm.params import chat_request

NUM_TOKENS = 64
SIZES = ((32, 32), (33, 47), (200, 100), (20, 90))


def png(size: tuple[int, int], seed: int) -> str:
    """A picture as a data URL. PNG, so that both decode it to the same pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def content(*parts: str) -> list[dict[str, Any]]:
    return [
        {"type": "image_url", "image_url": {"url": part}}
        if part.startswith("data:")
        else {"type": "text", "text": part}
        for part in parts
    ]


def generate(
    engine: snapllm.Engine, model: snapllm.Model, parts: list[dict[str, Any]]
) -> tuple[int, list[int]]:
    """The number of the prompt's tokens, and the answer's tokens."""
    options = {"temperature": 0, "max_tokens": NUM_TOKENS, "ignore_eos": True}
    messages = [{"role": "user", "content": parts}]
    lowered = engine.runner.lower(chat_request(model.id, messages, options))
    outputs = OutputIterator(engine.runner.core, next(lowered.core_requests(stream=False)))
    return len(lowered.tokens), [token for output in outputs for token in output.tokens]


@pytest.mark.parametrize(
    ("architecture", "projector"),
    [("llama", "mlp"), ("gemma3", "gemma3"), ("qwen2vl", "qwen2vl_merger")],
)
def test_the_answers_are_upstreams(
    tmp_path: Path, architecture: Architecture, projector: Projector
) -> None:
    binary = upstream_binary()
    path = make_nano_model(tmp_path / "m.gguf", architecture)
    mmproj_path = make_nano_projector(tmp_path / "mmproj.gguf", projector)
    chats = [content(png(size, seed), "What is it?") for seed, size in enumerate(SIZES)]
    chats.append(content("First", png((40, 40), 7), "then", png((60, 30), 8), "and?"))
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path, mmproj_path=mmproj_path, context_size=2048, flash_attention="off")
        ours = [generate(engine, model, parts) for parts in chats]
        with serving(binary, model, tmp_path / "log", "--mmproj", mmproj_path) as url:
            for parts, (num_prompt_tokens, tokens) in zip(chats, ours, strict=True):
                template = {
                    "messages": [{"role": "user", "content": parts}],
                    "chat_template_kwargs": {"enable_thinking": False},
                }
                prompt = post(url + "/apply-template", template)["prompt"]
                images = [p["image_url"]["url"].partition(",")[2] for p in parts if "text" not in p]
                body = {
                    "prompt": {"prompt_string": prompt, "multimodal_data": images},
                    "n_predict": NUM_TOKENS,
                    "temperature": 0,
                    "ignore_eos": True,
                    "return_tokens": True,
                    "cache_prompt": False,
                }
                answer = post(url + "/completion", body)
                assert answer["tokens_evaluated"] == num_prompt_tokens
                assert answer["tokens"] == tokens
    assert len({tuple(tokens) for _, tokens in ours}) == len(ours)
