"""Greedy answers to images equal those of llama.cpp's own programs, token by token.

How to get it: see `upstream`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nano_models import Architecture, make_nano_model
from nano_projectors import Projector, make_nano_projector
from PIL import Image
from ties import num_decided
from upstream import post, serving, upstream_binary

import snapllm
from snapllm._pump import OutputIterator
from snapllm._requests import chat_request
from snapllm.engine import demo_model_path, demo_projector_path

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
    engine: snapllm.Engine, model: snapllm.Model, parts: list[dict[str, Any]], **more: Any
) -> tuple[int, list[int], bytes]:
    """The number of the prompt's tokens, and the answer's tokens and bytes up to the first tie."""
    options = {"temperature": 0, "max_tokens": NUM_TOKENS, "ignore_eos": True, "num_logprobs": 2}
    messages = [{"role": "user", "content": parts}]
    lowered = asyncio.run(engine.runner.lower(chat_request(model.id, messages, options | more)))
    outputs = OutputIterator(engine.runner.core, next(lowered.core_requests(stream=False)))
    answer = [token for output in outputs for token in output.logprobs]
    assert len(answer) == NUM_TOKENS
    gaps = [token.top[0].logprob - token.top[1].logprob for token in answer]
    decided = answer[: num_decided(gaps)]
    tokens = [token.token for token in decided]
    return len(lowered.tokens), tokens, b"".join(token.bytes for token in decided)


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
            for parts, (num_prompt_tokens, tokens, _) in zip(chats, ours, strict=True):
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
                assert answer["tokens"][: len(tokens)] == tokens
    assert len({tuple(tokens) for _, tokens, _ in ours}) == len(ours)
    assert sum(len(tokens) for _, tokens, _ in ours) > len(ours) * NUM_TOKENS / 4


def cli_answer(model: snapllm.Model, mmproj_path: Path, prompt: str, images: list[Path]) -> bytes:
    """What upstream's command-line tool for images prints as its answer.

    Its log, which the answer is part of, sometimes loses its end when the program ends; a whole
    one ends with two line breaks.
    """
    options = [
        *("-m", str(model.info.path), "--mmproj", str(mmproj_path), "-p", prompt, "--jinja"),
        *("--temp", "0", "-n", str(NUM_TOKENS), "--ignore-eos", "-c", "2048", "-t", "1"),
        *("-fa", "off", "--no-warmup"),
        *(part for image in images for part in ("--image", str(image))),
    ]
    command = [str(upstream_binary("llama-mtmd-cli")), *options]
    for _ in range(10):
        output = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout
        if output.endswith(b"\n\n"):
            return output
    pytest.fail("llama-mtmd-cli never printed its whole answer")


@pytest.mark.parametrize("name", ["llama", "qwen2vl", "demo"])
def test_the_answers_are_those_of_upstreams_command_line(tmp_path: Path, name: str) -> None:
    if name == "demo":
        path, mmproj_path = demo_model_path(), demo_projector_path()
    else:
        architecture: Architecture = "llama" if name == "llama" else "qwen2vl"
        projector: Projector = "mlp" if name == "llama" else "qwen2vl_merger"
        path = make_nano_model(tmp_path / "m.gguf", architecture)
        mmproj_path = make_nano_projector(tmp_path / "mmproj.gguf", projector)
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load(path, mmproj_path=mmproj_path, context_size=2048, flash_attention="off")
        num_compared = 0
        for seed, size in enumerate(SIZES):
            pictures = [png(size, seed), png((40, 40), seed + 10)][: 1 + seed % 2]
            files = []
            for number, picture in enumerate(pictures):
                files.append(tmp_path / f"{number}.png")
                files[-1].write_bytes(base64.b64decode(picture.partition(",")[2]))
            parts = content(*pictures, "What is it?")
            _, tokens, ours = generate(engine, model, parts, thinking=True)
            theirs = cli_answer(model, mmproj_path, "What is it?", files)
            # It prints tokens as C strings, so that a NUL does not show, within empty lines.
            assert theirs.strip(b"\n").startswith(ours.replace(b"\0", b"").strip(b"\n"))
            num_compared += len(tokens)
    assert num_compared > len(SIZES) * NUM_TOKENS / 8
