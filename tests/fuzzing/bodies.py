"""Bodies that are answered, by endpoint; those that are mutated begin as one of these."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

Body = dict[str, Any]

_QUESTION = "What is the capital of France?"
_FILE = {"filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="}
_USER = {"role": "user", "content": _QUESTION}
_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"enum": [1, 2]}},
    "required": ["city"],
}
_ANSWER_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,4}$"}, "b": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
_FUNCTION = {"name": "weather", "description": "Of a city", "parameters": _PARAMETERS}


def picture() -> str:
    """A small PNG file in base64."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


_PICTURE = picture()
_DATA_URL = f"data:image/png;base64,{_PICTURE}"
_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}

_CHATS: list[Body] = [
    {
        "messages": [{"role": "system", "content": "Be brief."}, _USER],
        "max_completion_tokens": 8,
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "seed": 7,
        "n": 2,
        "stop": ["\n\n", "zzz"],
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": -1},
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "repeat_penalty": 1.1,
    },
    {
        "messages": [
            _USER,
            {"role": "assistant", "content": None, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        "max_tokens": 8,
        "tools": [{"type": "function", "function": _FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
    },
    {
        "messages": [
            _USER,
            {"role": "assistant", "content": None, "function_call": _CALL["function"]},
            {"role": "function", "name": "weather", "content": "sunny"},
        ],
        "max_tokens": 8,
        "functions": [_FUNCTION],
        "function_call": {"name": "weather"},
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": _DATA_URL, "detail": "low"}},
                ],
            }
        ],
        "max_tokens": 4,
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": _ANSWER_SCHEMA, "strict": True},
        },
    },
    {
        "messages": [{"role": "user", "content": [{"type": "file", "file": _FILE}]}],
        "max_tokens": 4,
        "structured_outputs": {"choice": ["yes", "no"]},
    },
    {"messages": [_USER], "max_tokens": 4, "guided_json": _ANSWER_SCHEMA, "top_k": -1},
    {"messages": [_USER], "max_tokens": 4, "grammar": 'root ::= [a-z ]+ "."'},
    {"messages": [_USER], "max_tokens": 4, "regex": "a{1,3}"},
    {"messages": [_USER], "max_tokens": 4, "ebnf": 'root ::= "a"'},
    {
        "messages": [_USER],
        "n_predict": 4,
        "stop": ["a", "e"],
        "include_stop_str_in_output": True,
        "repetition_penalty": 1.1,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "guided_regex": "^[a-z ]{2,9}[.!]?$",
    },
]
_RESPONSES: list[Body] = [
    {
        "input": _QUESTION,
        "instructions": "Be brief.",
        "max_output_tokens": 8,
        "temperature": 0,
        "top_p": 0.9,
        "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
        "metadata": {"a": "b"},
        "store": True,
        "reasoning": {"effort": "low"},
    },
    {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": _QUESTION}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "name": "goal", "output": "tests pass"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": _DATA_URL, "detail": "low"},
                    {"type": "input_file", **_FILE},
                ],
            },
        ],
        "max_output_tokens": 8,
        "tools": [{"type": "function", **_FUNCTION}, {"type": "custom", "name": "say"}],
        "tool_choice": {"type": "function", "name": "weather"},
        "text": {"format": {"type": "text"}},
    },
    {
        "input": _QUESTION,
        "max_output_tokens": 8,
        "previous_response_id": "@response",
        "text": {"format": {"type": "json_schema", "name": "x", "schema": _ANSWER_SCHEMA}},
    },
]
_MESSAGES: list[Body] = [
    {
        "messages": [_USER],
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "max_tokens": 8,
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40,
        "stop_sequences": ["zzz"],
        "thinking": {"type": "enabled", "budget_tokens": 4},
        "output_config": {"effort": "low"},
        "context_management": {"edits": []},
    },
    {
        "messages": [
            _USER,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": _PICTURE},
                    },
                ],
            },
        ],
        "max_tokens": 8,
        "tools": [{"name": "weather", "input_schema": _PARAMETERS}],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    },
    {
        "messages": [_USER],
        "max_tokens": 8,
        "output_config": {"format": {"type": "json_schema", "schema": _ANSWER_SCHEMA}},
    },
]
_COUNTED: list[Body] = [
    {name: value for name, value in body.items() if name not in ("max_tokens", "thinking")}
    for body in _MESSAGES
]
_SAMPLED: Body = {
    "system": "Be brief.",
    "max_tokens": 8,
    "temperature": 0,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "seed": 7,
    "stop": ["zzz"],
    "thinking": False,
}
_DRAWN: Body = {"prompt": "a cat", "steps": 2, "cfg_scale": 2.0, "seed": 1, "negative_prompt": "x"}

WITH_MODEL: dict[str, list[Body]] = {
    "/v1/chat/completions": _CHATS,
    "/v1/completions": [
        {
            "prompt": ["The capital of France is", [1, 2, 3]],
            "max_tokens": 4,
            "temperature": 0,
            "logprobs": 2,
            "n": 1,
            "best_of": 1,
            "stop": "zzz",
        },
        {"prompt": "Once upon", "max_tokens": 6, "echo": True, "logit_bias": {"7": 1}},
        {
            "prompt": "Once upon",
            "n_predict": 4,
            "structured_outputs": {"regex": "a time(?:,|\\s)"},
            "response_format": {"type": "text"},
            "stream_options": {"continuous_usage_stats": True},
        },
    ],
    "/v1/embeddings": [
        {"input": ["a cat", "a dog"], "encoding_format": "float", "dimensions": 4},
        {"input": [[1, 2, 3]], "encoding_format": "base64", "pooling": "auto"},
    ],
    "/v1/responses": _RESPONSES,
    "/v1/responses/input_tokens": [
        *(
            {name: value for name, value in body.items() if name in ("input", "tools", "text")}
            for body in _RESPONSES
        ),
        # Not to be kept: the SDK's types of listed items do not have all that is taken.
        {
            "input": [
                {"type": "additional_tools", "tools": [{"type": "custom", "name": "note"}]},
                {
                    "type": "agent_message",
                    "author": "a",
                    "recipient": "b",
                    "content": [{"type": "input_text", "text": "Look."}],
                },
            ]
        },
    ],
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": _COUNTED,
    "/api/v1/generate": [
        _SAMPLED | {"prompt": _QUESTION},
        {"prompt": "Once upon", "raw": True, "max_tokens": 6, "temperature": 0},
    ],
    "/api/v1/generate/batch": [_SAMPLED | {"prompts": [_QUESTION, "Hello"]}],
    "/api/v1/vision/generate": [_SAMPLED | {"prompt": "What is this?", "images": [_PICTURE]}],
}
"""Of endpoints that a model's name is added to."""

OTHERS: dict[str, list[Body]] = {
    "/api/v1/diffusion/generate": [
        _DRAWN
        | {
            "model": "pix",
            "width": 64,
            "height": 64,
            "sampler": "euler",
            "scheduler": "discrete",
            "init_image": _PICTURE,
            "mask": _PICTURE,
            "strength": 0.5,
            "output_format": "jpeg",
            "quality": 50,
            "batch_count": 1,
            "guidance": 3.5,
            "clip_skip": -1,
            "preview_interval": 1,
            "loras": {},
        }
    ],
    "/v1/images/generations": [
        _DRAWN
        | {
            "model": "pix",
            "n": 1,
            "size": "64x64",
            "response_format": "b64_json",
            "output_format": "webp",
            "output_compression": 50,
            "partial_images": 1,
            "quality": "low",
            "background": "opaque",
        }
    ],
    "/api/v1/models/load": [
        {
            "model_id": "second",
            "file_path": "@folder/second.gguf",
            "model_type": "auto",
            "gpu_layers": -1,
            "context_size": 512,
            "num_threads": 1,
            "draft_tokens": 2,
            "pinned": False,
            "keep_alive_s": 60,
            "flash_attention": "auto",
            "kv_type": "f16",
            "kv_cells": 1024,
            "max_sequences": 2,
            "batch_tokens": 128,
            "ubatch_tokens": 128,
        },
        {"model_id": "third", "file_path": "@folder/mamba.gguf", "context_size": 256},
        {
            "model_id": "pix",
            "file_path": "@folder/image/diffusion_model.safetensors",
            "llm_path": "@folder/image/llm.safetensors",
            "taesd_path": "@folder/image/taesd.safetensors",
        },
    ],
    "/api/v1/models/switch": [{"model_id": name} for name in ("demo", "nano", "second", "third")],
    "/api/v1/models/pin": [{"model_id": "second", "pinned": False}],
    "/api/v1/models/unload": [{"model_id": name} for name in ("second", "third")],
    "/api/v1/contexts/ingest": [
        {"content": "The sky is green.", "model_id": "demo", "name": "doc", "ttl_seconds": 600},
        {
            "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": _DATA_URL}},
            ],
            "model_id": "demo",
            "name": "album",
            "ttl_seconds": 2,
        },
        {"content": "Pigs can fly.", "model_id": "nano", "name": "doc", "ttl_seconds": 600},
    ],
    "/api/v1/contexts/{context_id}/query": [
        {
            "query": "What colour is the sky?",
            "max_tokens": 8,
            "temperature": 0.0,
            "top_p": 0.9,
            "top_k": 40,
            "min_p": 0.05,
            "seed": 1,
            "stop": ["zzz"],
            "thinking": False,
        }
    ],
    "/api/v1/contexts/{context_id}/promote": [{"tier": "hot"}, {}],
    "/api/v1/contexts/{context_id}/demote": [{"tier": "warm"}, {"tier": "cold"}, {}],
    "/api/v1/contexts/{context_id}/append": [{"content": " Grass is red."}],
    "/api/v1/contexts/{context_id}/fork": [{"name": "copy", "ttl_seconds": 60}, {}],
}
