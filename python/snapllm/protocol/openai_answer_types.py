"""What OpenAI's endpoints answer with, where it is not streamed.

Reference: OpenAI API, "Chat", "Completions", "Embeddings", "Images", "Models". The log
probabilities are `openai_logprobs`'.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from snapllm.protocol.openai_logprobs import ChatLogprobs


class PromptTokens(TypedDict):
    """Of the tokens of a prompt."""

    cached_tokens: int
    audio_tokens: Literal[0]
    """Those of sounds are not counted apart."""


class CompletionTokens(TypedDict):
    """Of the tokens of an answer. Nothing is said aloud here, and no prediction is read."""

    reasoning_tokens: int
    audio_tokens: Literal[0]
    accepted_prediction_tokens: Literal[0]
    rejected_prediction_tokens: Literal[0]


class CompletionUsage(TypedDict):
    """The token counts of an answer, and its speed, which is an extension."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens
    tokens_per_second: NotRequired[float]
    """Not of an answer that goes on."""


class CalledFunction(TypedDict):
    """A function with its arguments as JSON text."""

    name: str
    arguments: str


class CalledCustomTool(TypedDict):
    """A tool with its text."""

    name: str
    input: str


class CalledTool(TypedDict):
    """A tool call: of a function, or of a custom tool."""

    id: str
    type: Literal["function", "custom"]
    function: NotRequired[CalledFunction]
    custom: NotRequired[CalledCustomTool]


class AnswerMessage(TypedDict):
    """The message that a model answers with."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    """An extension."""
    tool_calls: NotRequired[list[CalledTool]]
    function_call: NotRequired[CalledFunction]
    """In place of `tool_calls` where the request has `functions`."""


class ChatChoice(TypedDict):
    """One of the answers to a conversation."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletionAnswer(TypedDict):
    """The body of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: None
    choices: list[ChatChoice]
    usage: CompletionUsage


class CompletionLogprobs(TypedDict):
    """The log probabilities of a text's tokens, in one list for each fact."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """None: a prompt's first, which follows nothing."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One of the texts that continue a prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    """None: more of it follows, in a stream."""


class CompletionAnswer(TypedDict):
    """The body of POST /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: None
    choices: list[CompletionChoice]
    usage: CompletionUsage


class Embedding(TypedDict):
    """The vector of a text: its numbers, or these as little-endian 32-bit floats in base64."""

    object: Literal["embedding"]
    index: int
    embedding: str | list[float]


class EmbeddingsUsage(TypedDict):
    """The token counts of embeddings."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(TypedDict):
    """The body of POST /v1/embeddings."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage


class GeneratedImage(TypedDict):
    """An image file: in base64, or as a data URL."""

    b64_json: NotRequired[str]
    url: NotRequired[str]
    seed: int
    """An extension."""


class ImagesAnswer(TypedDict):
    """The body of POST /v1/images/generations."""

    created: int
    data: list[GeneratedImage]
    size: str
    output_format: str
    background: Literal["opaque"]


class OpenAiModel(TypedDict):
    """A model, as OpenAI's clients are told of it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["local"]
    max_model_len: NotRequired[int]
    """Tokens of its context, by the name that vLLM has for it; of a text model that was loaded."""


class OpenAiModelList(TypedDict):
    """The body of GET /v1/models."""

    object: Literal["list"]
    data: list[OpenAiModel]
