"""SnapLLM: many local models in one process, switched in microseconds.

Example:
    >>> import snapllm
    >>> with snapllm.Engine() as engine:
    ...     model = engine.load_demo()
    ...     print(model.chat("What is machine learning?").content)
"""

from __future__ import annotations

import os

from snapllm import _command as _command
from snapllm import _main_interpreter as _main_interpreter

# ggml's OpenMP workers spin at barriers before they sleep. With libgomp's default of
# a millisecond, any other busy thread on the machine stretches a token's hundred
# barriers to a second; a short spin costs next to nothing on a quiet machine. Read
# when libgomp is loaded, so it must be set before the extension is.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from snapllm._core import EngineStats, ModelInfo, __version__
from snapllm.contexts import ContextView
from snapllm.diffusion import ImageModel, ImageResult
from snapllm.engine import Engine
from snapllm.errors import (
    ContextLengthExceededError,
    ContextNotFoundError,
    ContextTooLargeError,
    EngineClosedError,
    GenerationFailedError,
    InvalidModelError,
    InvalidRequestError,
    JobCancelled,
    ModelFileNotFoundError,
    ModelFileReplacedError,
    ModelNotFoundError,
    NoWorkspaceError,
    OutOfMemoryError,
    QueueFullError,
    SnapLLMError,
    StorageError,
)
from snapllm.model import Model
from snapllm.outputs import (
    CacheUse,
    ChatEvent,
    ChatResult,
    Completion,
    CompletionChunk,
    Embeddings,
    Finish,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenAlternative,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from snapllm.single_model import SingleModel, load, load_demo

__all__ = [
    "CacheUse",
    "ChatEvent",
    "ChatResult",
    "Completion",
    "CompletionChunk",
    "ContextLengthExceededError",
    "ContextNotFoundError",
    "ContextTooLargeError",
    "ContextView",
    "Embeddings",
    "Engine",
    "EngineClosedError",
    "EngineStats",
    "Finish",
    "GenerationFailedError",
    "ImageModel",
    "ImageResult",
    "InvalidModelError",
    "InvalidRequestError",
    "JobCancelled",
    "Model",
    "ModelFileNotFoundError",
    "ModelFileReplacedError",
    "ModelInfo",
    "ModelNotFoundError",
    "NoWorkspaceError",
    "OutOfMemoryError",
    "QueueFullError",
    "ReasoningDelta",
    "SingleModel",
    "SnapLLMError",
    "StorageError",
    "TextDelta",
    "Timings",
    "TokenAlternative",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallStart",
    "Usage",
    "__version__",
    "load",
    "load_demo",
]
