"""What can be done with conversations and contexts, step by step, on a `CheckedEngine`.

A `World` has a method for each thing that can be done; all take a `Step`, whose numbers
each of them reads as it needs them, so that any list of steps is a history.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from random import Random

from exact_answers import ANSWER_TOKENS, KvType
from exact_engine import CheckedEngine, Tier

import snapllm

NUM_FORKS = 16
NUM_OUTGROWING = 6
OUTGROWING_TOKENS = 420  # far more than a request is granted cells for at first
OUTGROWING_PROMPTS = (10, 64, 200, 300)
MAX_DOCUMENT = 1500
_NOT_IN_TEXTS = 0  # a token
_TOO_LARGE = (snapllm.ContextTooLargeError, snapllm.ContextLengthExceededError)


@dataclass(frozen=True)
class Step:
    """One thing to do: the name of a method of `World`, and numbers."""

    action: str
    which: int = 0
    length: int = 1
    cut: int = 0
    tier: Tier = "warm"
    kv_type: KvType = "f16"


@dataclass
class Conversation:
    """A prompt and what it was answered; those with tokens in common have one root."""

    prompt: list[int]
    root: object
    answer: list[int] = field(default_factory=list)

    @property
    def computed(self) -> list[int]:
        """What there is KV of; the last token's is never computed."""
        return self.prompt + self.answer[:-1]


class World:
    """The conversations and contexts of a case."""

    def __init__(self, engine: CheckedEngine) -> None:
        self._engine = engine
        self._conversations: list[Conversation] = []
        self._contexts: list[str] = []
        self._num_made = 0

    def new(self, step: Step) -> None:
        """A conversation with tokens of its own after the beginning of another."""
        start = self._pick(step)
        shared = start.computed[: step.cut] if start is not None else []
        root = start.root if start is not None and shared else object()
        self._begin(shared + self._tokens(step.length), root)

    def turn(self, step: Step) -> None:
        """The next turn of a conversation, or the same one again where it is long enough."""
        if conversation := self._pick(step):
            prompt = conversation.prompt + conversation.answer
            prompt = self._engine.limited(prompt + self._tokens(step.length % 300))
            if len(prompt) > len(conversation.prompt):
                conversation.prompt, conversation.answer = prompt, []
            self._ask(conversation)

    def again(self, step: Step) -> None:
        """The same once more."""
        if conversation := self._pick(step):
            self._ask(conversation)

    def fork(self, step: Step) -> None:
        """Many branches at once, while their beginning is moved."""
        if conversation := self._pick(step):
            begin = conversation.computed[: max(step.cut, 1)]
            prompts = [
                self._engine.limited(begin + self._tokens(1 + (step.length + 7 * i) % 90))
                for i in range(NUM_FORKS)
            ]
            self._engine.ask_all(prompts, ANSWER_TOKENS, lambda: self.move(step))

    def outgrow(self, step: Step) -> None:
        """Answers that together are more than a small KV memory holds."""
        if self._engine.setup.is_tight:
            # The same in all cases: they take long to compute alone.
            length = OUTGROWING_PROMPTS[step.which % len(OUTGROWING_PROMPTS)]
            prompts = [_random_tokens(1000 + i, length + 11 * i) for i in range(NUM_OUTGROWING)]
            self._engine.ask_all(prompts, OUTGROWING_TOKENS, lambda: None)

    def leave(self, step: Step) -> None:
        """A turn whose answer, or prompt, is left before it is there."""
        if conversation := self._pick(step):
            prompt = self._engine.limited(conversation.computed + self._tokens(step.length))
            self._engine.leave(prompt, conversation.root, step.which % 3)

    def move(self, step: Step) -> None:
        """A conversation to another tier."""
        if conversation := self._pick(step):
            self._engine.move(conversation.computed, conversation.root, step.tier)

    def ingest(self, step: Step) -> None:
        """A context, which begins as all others do."""
        self._num_made += 1
        document = _text(0, step.cut) + _text(self._num_made, step.length)
        self._engine.change_contexts()
        with contextlib.suppress(snapllm.ContextTooLargeError):
            self._add(self._engine.contexts.ingest(document[:MAX_DOCUMENT], "m"))

    def query(self, step: Step) -> None:
        """A question to a context, whose KV is kept whatever else happens."""
        if context_id := self._pick_context(step):
            record = self._engine.contexts.get(context_id).record
            self._num_made += 1
            question = _text(self._num_made, step.length % 40 + 1)
            num_cached = self._engine.query(context_id, question)
            if record.fingerprint == self._engine.fingerprint:
                assert num_cached >= len(record.tokens), "a context was not kept"
            self._note_context(context_id)

    def talk(self, step: Step) -> None:
        """A conversation that begins as a context's questions do, and goes on otherwise."""
        if context_id := self._pick_context(step):
            tokens = self._engine.contexts.get(context_id).record.tokens
            self._begin([*tokens, _NOT_IN_TEXTS, *self._tokens(step.length)], context_id)

    def move_context(self, step: Step) -> None:
        """A context to another tier."""
        if context_id := self._pick_context(step):
            self._engine.change_contexts()
            if step.tier == "hot":
                self._engine.claim(context_id)
            with contextlib.suppress(snapllm.ContextTooLargeError, snapllm.OutOfMemoryError):
                view = self._engine.contexts.move(context_id, step.tier)
                assert view.tier == step.tier
            self._note_context(context_id)

    def append(self, step: Step) -> None:
        """More text for a context."""
        if context_id := self._pick_context(step):
            self._engine.change_contexts()
            with contextlib.suppress(*_TOO_LARGE):
                self._engine.contexts.append(context_id, _text(7, step.length % 700 + 1))
            self._note_context(context_id)
            self._engine.change_contexts()

    def copy(self, step: Step) -> None:
        """A fork of a context, or one that went through a file."""
        if context_id := self._pick_context(step):
            contexts = self._engine.contexts
            self._engine.change_contexts()
            with contextlib.suppress(snapllm.ContextTooLargeError):
                if step.cut % 2:
                    self._add(contexts.fork(context_id))
                else:
                    file = self._engine.folder / "shipped.snapctx"
                    contexts.export_file(context_id, file)
                    self._add(contexts.import_file(file))
            self._engine.change_contexts()

    def delete(self, step: Step) -> None:
        """A context less."""
        if context_id := self._pick_context(step):
            self._engine.contexts.delete(context_id)
            self._contexts.remove(context_id)
            self._engine.change_contexts()

    def restart(self, step: Step) -> None:
        """The engine anew, in the same workspace."""
        self._engine.restart()
        self._check_contexts()

    def kill(self, step: Step) -> None:
        """The engine anew, in the workspace as a kill would leave it."""
        self._engine.restart_killed()
        self._check_contexts()

    def reload(self, step: Step) -> None:
        """The model anew, with KV of another type."""
        self._engine.reload(step.kv_type)

    def _pick(self, step: Step) -> Conversation | None:
        made = self._conversations
        return made[step.which % len(made)] if made else None

    def _pick_context(self, step: Step) -> str | None:
        made = self._contexts
        return made[step.which % len(made)] if made else None

    def _tokens(self, count: int) -> list[int]:
        self._num_made += 1
        return _random_tokens(self._num_made, count)

    def _begin(self, prompt: list[int], root: object) -> None:
        self._conversations.append(Conversation(self._engine.limited(prompt), root))
        self._ask(self._conversations[-1])

    def _ask(self, conversation: Conversation) -> None:
        conversation.answer = self._engine.ask(conversation.prompt, conversation.root)

    def _add(self, view: snapllm.contexts.ContextView) -> None:
        self._contexts.append(view.record.id)
        self._note_context(view.record.id)

    def _note_context(self, context_id: str) -> None:
        self._engine.note_computed(self._engine.contexts.get(context_id).record.tokens)

    def _check_contexts(self) -> None:
        views = self._engine.contexts.list()
        assert {view.record.id for view in views} == set(self._contexts)
        assert all(view.is_on_disk for view in views)


def _random_tokens(seed: int, count: int) -> list[int]:
    rng = Random(seed)
    return [rng.randrange(250) for _ in range(count)]


def _text(seed: int, count: int) -> str:
    return "".join(Random(seed).choices("abcdefgh \n", k=count))
