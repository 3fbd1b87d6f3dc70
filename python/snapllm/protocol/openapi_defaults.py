"""What holds where a request leaves a field out that its type has as None, for the description.

The values are those of the code that applies them.
"""

from __future__ import annotations

from typing import Any

from snapllm._core import ModelOptions
from snapllm.diffusion.pictures import DEFAULT_QUALITY
from snapllm.params import (
    DEFAULT_MAX_TOKENS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    SamplingOptions,
)
from snapllm.protocol.anthropic_types import (
    CountTokensRequest,
    MessagesRequest,
    MessagesToolChoice,
    Thinking,
)
from snapllm.protocol.contexts import ForkRequest, IngestRequest
from snapllm.protocol.diffusion import DiffusionRequest
from snapllm.protocol.native import BatchRequest, GenerateRequest
from snapllm.protocol.native_models import LoadRequest
from snapllm.protocol.openai_completions import DEFAULT_COMPLETION_TOKENS, CompletionsRequest
from snapllm.protocol.openai_embeddings import EmbeddingsRequest
from snapllm.protocol.openai_images import DEFAULT_SIDE, ImagesRequest
from snapllm.protocol.openai_sampling import SAMPLING_FIELDS
from snapllm.protocol.openai_types import ChatCompletionRequest, StreamOptions
from snapllm.protocol.responses_types import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    InputTokensRequest,
    Reasoning,
    ResponsesRequest,
)
from snapllm.protocol.vision import VisionRequest

_SAMPLING, _CHAT, _MODEL = SamplingOptions(), ChatRequest(messages=[]), ModelOptions(path="")


def _of(applied: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(applied, name) for name in names}


_TOOLS = _of(_CHAT, "tool_choice", "parallel_tool_calls")

APPLIED: dict[type, dict[str, Any]] = {
    ChatCompletionRequest: {
        **_of(_SAMPLING, *SAMPLING_FIELDS),
        **_of(_CHAT, "n"),
        **_TOOLS,
        "logprobs": False,
        "top_logprobs": 0,
        "include_stop_str_in_output": False,
        "stream": False,
    },
    CompletionsRequest: {
        **_of(_SAMPLING, *SAMPLING_FIELDS),
        **_of(CompletionRequest(prompt=""), "n", "suffix"),
        "max_tokens": DEFAULT_COMPLETION_TOKENS,
        "include_stop_str_in_output": False,
        "echo": False,
        "stream": False,
    },
    EmbeddingsRequest: {**_of(EmbeddingRequest(inputs=[]), "pooling"), "encoding_format": "float"},
    ImagesRequest: {"output_compression": DEFAULT_QUALITY},
    InputTokensRequest: _TOOLS,
    ResponsesRequest: {
        **_of(_SAMPLING, "temperature", "top_p"),
        **_TOOLS,
        "max_output_tokens": DEFAULT_MAX_OUTPUT_TOKENS,
        "top_logprobs": 0,
        "stream": False,
        "store": True,
        "background": False,
        "truncation": "disabled",
    },
    StreamOptions: {"include_usage": False, "continuous_usage_stats": False},
    MessagesRequest: {**_of(_SAMPLING, "temperature", "top_p", "top_k"), "stream": False},
    MessagesToolChoice: {"disable_parallel_tool_use": not _CHAT.parallel_tool_calls},
    # It has one since it is a request that must have one.
    CountTokensRequest: {"max_tokens": None},
    LoadRequest: _of(_MODEL, "kv_cells", "max_sequences", "batch_tokens", "ubatch_tokens"),
}
"""By the type of a body, or of a part of one."""

_FOR_EVER = {"ttl_seconds": "`null` = for ever."}
_ACTIVE = {"model": "By default the active model.", "model_id": "Another name of `model`."}
_OTHER_NAMES = {
    "n_predict": "`max_tokens` by llama-server's name, which goes last; -1 = as many as the "
    "context holds, 0 = none.",
    "repetition_penalty": "`repeat_penalty` by vLLM's name.",
}
_NO_THINKING = "By default the model does not think."

NOTES: dict[type, dict[str, str]] = {
    ChatCompletionRequest: {
        "max_tokens": "By default what the server's --default-max-tokens says: "
        f"{DEFAULT_MAX_TOKENS} without it.",
        "max_completion_tokens": "`max_tokens` by its newer name, which goes first.",
        **_OTHER_NAMES,
        "reasoning_effort": _NO_THINKING,
        "continue_final_message": "By default what the last message has as `prefix`.",
    },
    CompletionsRequest: {"best_of": "By default `n`.", **_OTHER_NAMES},
    EmbeddingsRequest: {"dimensions": "By default all that the model has."},
    ImagesRequest: {
        "model": "Empty = the active model.",
        "size": f"`auto` is {DEFAULT_SIDE}x{DEFAULT_SIDE}.",
    },
    DiffusionRequest: _ACTIVE,
    GenerateRequest: _ACTIVE,
    BatchRequest: _ACTIVE,
    VisionRequest: _ACTIVE,
    Reasoning: {"effort": _NO_THINKING},
    MessagesRequest: {"thinking": _NO_THINKING},
    Thinking: {"budget_tokens": "By default only `max_tokens` ends it."},
    CountTokensRequest: {"max_tokens": "Changes nothing: nothing is generated."},
    IngestRequest: _FOR_EVER,
    ForkRequest: _FOR_EVER,
    LoadRequest: {
        "context_size": "By default what the server's --context-size says; 0 = as memory allows.",
        "gpu_layers": "By default what the server's --gpu-layers says; -1 = all.",
        "kv_type": "By default what the server's --kv-type says.",
        "draft_tokens": "By default what the server's --draft-tokens says.",
        "flash_attention": "By default what the server's --flash-attention says of a text model, "
        "off of an image model.",
        "keep_alive_s": "By default what the server's --keep-alive says; 0 = as long as memory "
        "allows.",
        "ubatch_tokens": "At most `batch_tokens`.",
    },
}
"""What is said of a field, where the default is a matter of something else."""
