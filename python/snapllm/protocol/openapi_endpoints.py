"""The endpoints of the HTTP API, with the types of their bodies and answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from snapllm.protocol import (
    anthropic_answer_types,
    anthropic_models,
    anthropic_types,
    context_answers,
    contexts,
    diffusion,
    error_codes,
    native,
    native_listing,
    native_model_answers,
    native_models,
    openai_answer_types,
    openai_completions,
    openai_embeddings,
    openai_image_edits,
    openai_images,
    openai_types,
    responses_answer_types,
    responses_items,
    responses_types,
    server_facts,
    stream_types,
    vision,
)

FILE = "application/octet-stream"


class Stream(NamedTuple):
    """A streamed answer."""

    kinds: tuple[Any, ...]
    """The types of the data of its events."""
    about: str


class Endpoint(NamedTuple):
    """A method of a path."""

    method: str
    path: str
    summary: str
    body: Any = None
    """The type of a JSON body, or the media type of another."""
    answer: Any = None
    """The type of a JSON answer, or the media type of another."""
    stream: Stream | None = None
    """What it answers where the body asks for a stream."""
    body_media: str = "application/json"
    """The media type of a body that has a type."""
    query: Any = None
    """The type of what stands behind the path, if anything is read there."""
    needs_body: bool = True
    """Whether it refuses an empty body, if it takes one."""
    answer_to_anthropic: Any = None
    """The type of the answer to a client of Anthropic's, where it has another."""

    @property
    def error(self) -> Any:
        """The type of its errors."""
        is_anthropics = self.path.startswith("/v1/messages")
        return anthropic_answer_types.AnthropicError if is_anthropics else error_codes.ErrorAnswer


def _pieces(*kinds: Any) -> Stream:
    """A stream of data only."""
    return Stream(
        (*kinds, error_codes.ErrorAnswer),
        "The data of a server-sent event. `[DONE]` follows the last one, unless that is an error.",
    )


def _events(*kinds: Any) -> Stream:
    """A stream of events with names."""
    return Stream(kinds, "The data of a server-sent event, whose name is its type, or `error`.")


ENDPOINTS = (
    Endpoint(
        "get",
        "/health",
        "Whether the server answers, and which models it has",
        answer=server_facts.HealthAnswer,
    ),
    Endpoint(
        "get",
        "/api/hello",
        "Anthropic: whether the server answers",
        answer=server_facts.HelloAnswer,
    ),
    Endpoint("get", "/metrics", "Counters in Prometheus' text format", answer="text/plain"),
    Endpoint(
        "get",
        "/v1/models",
        "The loaded models, in OpenAI's or Anthropic's form",
        answer=openai_answer_types.OpenAiModelList,
        query=anthropic_models.ListQuery,
        answer_to_anthropic=anthropic_answer_types.AnthropicModelList,
    ),
    Endpoint(
        "get",
        "/v1/models/{model_id}",
        "One loaded model",
        answer=openai_answer_types.OpenAiModel,
        answer_to_anthropic=anthropic_answer_types.AnthropicModel,
    ),
    Endpoint(
        "post",
        "/v1/chat/completions",
        "OpenAI: answers a conversation",
        openai_types.ChatCompletionRequest,
        openai_answer_types.ChatCompletionAnswer,
        stream=_pieces(stream_types.ChatChunk),
    ),
    Endpoint(
        "post",
        "/v1/completions",
        "OpenAI: continues a prompt",
        openai_completions.CompletionsRequest,
        openai_answer_types.CompletionAnswer,
        stream=_pieces(stream_types.CompletionPiece),
    ),
    Endpoint(
        "post",
        "/v1/embeddings",
        "OpenAI: embeds texts",
        openai_embeddings.EmbeddingsRequest,
        openai_answer_types.EmbeddingsAnswer,
    ),
    Endpoint(
        "post",
        "/v1/responses",
        "OpenAI: answers",
        responses_types.ResponsesRequest,
        responses_answer_types.ResponseAnswer,
        stream=_events(stream_types.ResponseEvent),
    ),
    Endpoint(
        "post",
        "/v1/responses/input_tokens",
        "OpenAI: counts the tokens of a prompt",
        responses_types.InputTokensRequest,
        responses_answer_types.InputTokensAnswer,
    ),
    Endpoint(
        "get",
        "/v1/responses/{response_id}",
        "OpenAI: an answer that is kept",
        answer=responses_answer_types.ResponseAnswer,
        query=responses_items.RetrieveQuery,
    ),
    Endpoint(
        "delete",
        "/v1/responses/{response_id}",
        "OpenAI: forgets an answer",
        answer=responses_answer_types.DeletedResponse,
    ),
    Endpoint(
        "get",
        "/v1/responses/{response_id}/input_items",
        "OpenAI: the input of an answer",
        answer=responses_answer_types.InputItemList,
        query=responses_items.ListQuery,
    ),
    Endpoint(
        "post",
        "/v1/messages",
        "Anthropic: answers a conversation",
        anthropic_types.MessagesRequest,
        anthropic_answer_types.MessageAnswer,
        stream=_events(stream_types.MessageEvent, anthropic_answer_types.AnthropicError),
    ),
    Endpoint(
        "post",
        "/v1/messages/count_tokens",
        "Anthropic: counts the tokens of a prompt",
        anthropic_types.CountTokensRequest,
        anthropic_answer_types.TokenCountAnswer,
    ),
    Endpoint(
        "post",
        "/api/v1/generate",
        "Answers one prompt",
        native.GenerateRequest,
        native.GenerateAnswer,
        stream=_pieces(stream_types.TextPiece, stream_types.LastTextPiece),
    ),
    Endpoint(
        "post",
        "/api/v1/generate/batch",
        "Answers several prompts",
        native.BatchRequest,
        native.BatchAnswer,
    ),
    Endpoint(
        "post",
        "/api/v1/vision/generate",
        "Answers a question about images",
        vision.VisionRequest,
        native.GenerateAnswer,
        stream=_pieces(stream_types.TextPiece, stream_types.LastTextPiece),
    ),
    Endpoint(
        "post",
        "/api/v1/diffusion/generate",
        "Makes images",
        diffusion.DiffusionRequest,
        diffusion.DiffusionAnswer,
        stream=_pieces(
            stream_types.QueuedPiece,
            stream_types.StepPiece,
            stream_types.PreviewPiece,
            stream_types.ResultPiece,
        ),
    ),
    Endpoint(
        "get",
        "/api/v1/diffusion/jobs",
        "The image jobs that wait or run",
        answer=diffusion.JobList,
    ),
    Endpoint(
        "get",
        "/api/v1/diffusion/jobs/{job_id}",
        "An image job's state",
        answer=diffusion.JobAnswer,
    ),
    Endpoint(
        "delete",
        "/api/v1/diffusion/jobs/{job_id}",
        "Cancels an image job",
        answer=diffusion.CancelledJob,
    ),
    Endpoint(
        "post",
        "/v1/images/generations",
        "OpenAI: makes images",
        openai_images.ImagesRequest,
        openai_answer_types.ImagesAnswer,
        stream=_events(
            stream_types.PartialImage, stream_types.CompletedImage, error_codes.ErrorAnswer
        ),
    ),
    Endpoint(
        "post",
        "/v1/images/edits",
        "OpenAI: makes images of an image",
        openai_image_edits.ImageEdit,
        openai_answer_types.ImagesAnswer,
        stream=_events(
            stream_types.PartialImage, stream_types.CompletedImage, error_codes.ErrorAnswer
        ),
        body_media="multipart/form-data",
    ),
    Endpoint(
        "get",
        "/api/v1/models",
        "The models and their facts",
        answer=native_listing.ModelList,
    ),
    Endpoint(
        "post",
        "/api/v1/models/load",
        "Loads a model",
        native_models.LoadRequest,
        native_model_answers.LoadedModel,
    ),
    Endpoint(
        "post",
        "/api/v1/models/switch",
        "Makes a model active",
        native_models.ModelIdRequest,
        native_model_answers.SwitchedModel,
    ),
    Endpoint(
        "post",
        "/api/v1/models/unload",
        "Unloads a model",
        native_models.ModelIdRequest,
        native_model_answers.UnloadedModel,
    ),
    Endpoint(
        "post",
        "/api/v1/models/pin",
        "Exempts a model from eviction",
        native_models.PinRequest,
        native_model_answers.PinnedModel,
    ),
    Endpoint(
        "get",
        "/api/v1/models/{model_id}",
        "One model and its facts",
        answer=native_listing.OneModel,
    ),
    Endpoint(
        "get",
        "/api/v1/models/cache/stats",
        "Memory and cache statistics",
        answer=native_model_answers.CacheStatsAnswer,
    ),
    Endpoint(
        "post",
        "/api/v1/contexts/ingest",
        "Computes and keeps a document",
        contexts.IngestRequest,
        context_answers.IngestedContext,
        stream=_pieces(stream_types.IngestProgress, stream_types.IngestResult),
    ),
    Endpoint(
        "get",
        "/api/v1/contexts",
        "The contexts",
        answer=context_answers.ContextList,
        query=contexts.ContextFilters,
    ),
    Endpoint(
        "get",
        "/api/v1/contexts/stats",
        "Counts, memory and hits of the contexts",
        answer=context_answers.ContextStatsAnswer,
    ),
    Endpoint(
        "get",
        "/api/v1/contexts/{context_id}",
        "One context",
        answer=context_answers.OneContext,
    ),
    Endpoint(
        "delete",
        "/api/v1/contexts/{context_id}",
        "Removes a context",
        answer=context_answers.DeletedContext,
    ),
    Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/query",
        "Answers a question about a context",
        contexts.QueryRequest,
        context_answers.QueryAnswer,
        stream=_pieces(stream_types.TextPiece, stream_types.LastQueryPiece),
    ),
    Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/promote",
        "Moves a context to a tier: the next warmer one, where none is named",
        contexts.TierRequest,
        context_answers.MovedContext,
        needs_body=False,
    ),
    Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/demote",
        "Moves a context to a tier: the next colder one, where none is named",
        contexts.TierRequest,
        context_answers.MovedContext,
        needs_body=False,
    ),
    Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/append",
        "Adds text to a context",
        contexts.AppendRequest,
        context_answers.IngestedContext,
    ),
    Endpoint(
        "post",
        "/api/v1/contexts/{context_id}/fork",
        "A second context of the same document",
        contexts.ForkRequest,
        context_answers.IngestedContext,
    ),
    Endpoint("get", "/api/v1/contexts/{context_id}/export", "A context as one file", answer=FILE),
    Endpoint(
        "post",
        "/api/v1/contexts/import",
        "Makes a context of such a file",
        FILE,
        context_answers.IngestedContext,
        query=contexts.ImportQuery,
    ),
    Endpoint(
        "get",
        "/api/v1/requests/{request_id}/cache",
        "What a request reused, and what ended it",
        answer=server_facts.RequestCacheAnswer,
    ),
)
