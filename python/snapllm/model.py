"""A resident model, as Python sees it."""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, overload

from typing_extensions import Unpack

from snapllm import _core
from snapllm._checks import check_text, convert, plain_number, token_ids
from snapllm._embedding import RawEmbeddings
from snapllm._numbers import Tokens
from snapllm._readers import fold_chat, fold_completion
from snapllm._requests import chat_request, completion_request, embedding_request
from snapllm._runner import Answer, Runner
from snapllm.errors import InvalidRequestError
from snapllm.outputs import ChatEvent, ChatResult, Completion, CompletionChunk, Embeddings
from snapllm.params import (
    ChatOptions,
    ChatRequest,
    CompletionOptions,
    CompletionRequest,
    EmbeddingInput,
    Prompt,
)

if TYPE_CHECKING:
    from typing import TypeVar

    _Event = TypeVar("_Event")

Messages = str | Sequence[Mapping[str, Any]]


class Model:
    """A model that an `Engine` has loaded. Any thread may use it, many at once.

    Two are equal that are of one engine and one id.

    Attributes:
        id: The id it was loaded under.
    """

    def __init__(self, runner: Runner, model_id: str) -> None:
        self._runner = runner
        self.id = model_id

    def __repr__(self) -> str:
        return f"<snapllm.Model {self.id!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model):
            return NotImplemented
        return self._runner is other._runner and self.id == other.id

    def __hash__(self) -> int:
        return hash((self._runner, self.id))

    @property
    def info(self) -> _core.ModelInfo:
        """Facts about the model: architecture, sizes, threads, and more.

        Raises:
            ModelNotFoundError: The model was unloaded.
        """
        self._runner.gate.check_not_shut()
        return self._runner.core.model_info(self.id)

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]:
        """Returns the token ids of a text.

        Args:
            text: The text.
            add_special: Put the model's beginning-of-text token first, if it has one.
            parse_special: Read the text of special tokens as those tokens.

        Raises:
            InvalidRequestError: It is no text, or an argument of the wrong type.
            ContextLengthExceededError: It cannot fit the context, however few tokens it has.
        """
        self._runner.gate.check_not_shut()
        return self._runner.core.tokenize(
            self.id,
            check_text(text, "text"),
            convert(plain_number(add_special), bool, "add_special"),
            convert(plain_number(parse_special), bool, "parse_special"),
        )

    def detokenize(self, tokens: Tokens, *, special: bool = True) -> str:
        """Returns the text of tokens; broken UTF-8 becomes U+FFFD.

        Args:
            tokens: Token ids.
            special: Render special tokens as text instead of leaving them out.

        Raises:
            InvalidRequestError: They are no token ids, or one is not in the vocabulary.
        """
        ids = token_ids(tokens, "tokens")
        special = convert(plain_number(special), bool, "special")
        self._runner.gate.check_not_shut()
        try:
            return self._runner.core.detokenize(self.id, ids, special).decode(errors="replace")
        except InvalidRequestError as error:
            error.param = "tokens"  # elsewhere they are a prompt's
            raise

    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        stream: Literal[False] = False,
        **options: Unpack[CompletionOptions],
    ) -> Completion: ...
    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        stream: Literal[True],
        **options: Unpack[CompletionOptions],
    ) -> Generator[CompletionChunk, None, None]: ...
    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        stream: bool,
        **options: Unpack[CompletionOptions],
    ) -> Completion | Generator[CompletionChunk, None, None]: ...
    def generate(
        self,
        prompt: Prompt,
        *,
        stream: bool = False,
        **options: Unpack[CompletionOptions],
    ) -> Completion | Generator[CompletionChunk, None, None]:
        """Continues a prompt as it is, without a chat template.

        Args:
            prompt: Text, or token ids.
            stream: Return a generator of pieces instead of the whole answer. Leaving
                or closing it early cancels the request.
            **options: See `snapllm.params.CompletionOptions`.

        Raises:
            InvalidRequestError: An option is out of range; `param` names it.
            ContextLengthExceededError: The prompt does not fit the context.
            QueueFullError: Too many requests wait for this model.
            GenerationFailedError: The model failed while computing.
        """
        stream = convert(plain_number(stream), bool, "stream")
        chunks = self._runner.completion(
            completion_request(self.id, prompt, options), stream=stream
        )
        return chunks if stream else fold_completion(chunks)

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        stream: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> ChatResult: ...
    @overload
    def chat(
        self,
        messages: Messages,
        *,
        stream: Literal[True],
        **options: Unpack[ChatOptions],
    ) -> Generator[ChatEvent, None, None]: ...
    @overload
    def chat(
        self,
        messages: Messages,
        *,
        stream: bool,
        **options: Unpack[ChatOptions],
    ) -> ChatResult | Generator[ChatEvent, None, None]: ...
    def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatResult | Generator[ChatEvent, None, None]:
        """Answers a conversation, formatted by the model's own chat template.

        Args:
            messages: Messages in the OpenAI form, or the text of one user message. Tool calls
                may be those of an answer.
            stream: Return a generator of events, of which the last is a `Finish`.
                Leaving or closing it early cancels the request.
            **options: See `snapllm.params.ChatOptions`.

        Raises:
            InvalidRequestError: A message or option is wrong; `param` names it.
            ContextLengthExceededError: The conversation does not fit the context.
            QueueFullError: Too many requests wait for this model.
            GenerationFailedError: The model failed while computing.
        """
        stream = convert(plain_number(stream), bool, "stream")
        events = self._runner.chat(chat_request(self.id, messages, options), stream=stream)
        return events if stream else fold_chat(events)

    def embed(
        self,
        inputs: EmbeddingInput,
        *,
        pooling: str | None = "auto",
        dimensions: int | None = None,
    ) -> Embeddings:
        """Turns texts into vectors of length 1, whose dot products say how alike they are.

        Args:
            inputs: A text or several, or the tokens of one text or of several.
            pooling: How the vectors of a text's tokens become one: ``"mean"``, ``"last"``,
                or ``"auto"`` for what the model was made for (the mean where its file does
                not say).
            dimensions: Keep only so many first components; None = all.

        Raises:
            InvalidRequestError: An argument is wrong; `param` names it.
            ContextLengthExceededError: An input is longer than the model can take at once.
            OutOfMemoryError: There is no memory for the model's embeddings.
        """
        request = embedding_request(self.id, inputs, pooling=pooling, dimensions=dimensions)
        return _embeddings(self._runner.embeddings.run(request))

    async def aembed(
        self,
        inputs: EmbeddingInput,
        *,
        pooling: str | None = "auto",
        dimensions: int | None = None,
    ) -> Embeddings:
        """`embed` for asyncio. Cancelling the task ends the request soon."""
        request = embedding_request(self.id, inputs, pooling=pooling, dimensions=dimensions)
        return _embeddings(await self._runner.embeddings.arun(request))

    async def agenerate(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Completion:
        """`generate` for asyncio. Cancelling the task cancels the request."""
        request = completion_request(self.id, prompt, options)
        return fold_completion([chunk async for chunk in self._stream_completion(request, False)])

    def agenerate_stream(
        self, prompt: Prompt, **options: Unpack[CompletionOptions]
    ) -> AsyncGenerator[CompletionChunk, None]:
        """`generate(..., stream=True)` for asyncio; closing it cancels the request."""
        return self._stream_completion(completion_request(self.id, prompt, options), True)

    async def achat(self, messages: Messages, **options: Unpack[ChatOptions]) -> ChatResult:
        """`chat` for asyncio. Cancelling the task cancels the request."""
        request = chat_request(self.id, messages, options)
        return fold_chat([event async for event in self._stream_chat(request, False)])

    def achat_stream(
        self, messages: Messages, **options: Unpack[ChatOptions]
    ) -> AsyncGenerator[ChatEvent, None]:
        """`chat(..., stream=True)` for asyncio; closing it cancels the request."""
        return self._stream_chat(chat_request(self.id, messages, options), True)

    async def _stream_chat(
        self, request: ChatRequest, stream: bool
    ) -> AsyncGenerator[ChatEvent, None]:
        [answer] = await self._runner.start_chat(request, stream=stream)
        async with aclosing(_flatten(answer)) as events:
            async for event in events:
                yield event

    async def _stream_completion(
        self, request: CompletionRequest, stream: bool
    ) -> AsyncGenerator[CompletionChunk, None]:
        [answer] = await self._runner.start_completion(request, stream=stream)
        async with aclosing(_flatten(answer)) as chunks:
            async for chunk in chunks:
                yield chunk


def _embeddings(raw: RawEmbeddings) -> Embeddings:
    return Embeddings(
        vectors=[array("f", vector).tolist() for vector in raw.vectors], num_tokens=raw.num_tokens
    )


async def _flatten(answer: Answer[_Event]) -> AsyncGenerator[_Event, None]:
    try:
        while events := await answer.next():
            for event in events:
                yield event
    finally:
        answer.close()
