"""An engine each of whose answers is checked: against the answer of its prompt alone."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from exact_answers import (
    ANSWER_TOKENS,
    GREEDY,
    LARGEST_CONTEXT,
    Answer,
    KvType,
    Reference,
    difference,
)

import snapllm
from snapllm import _core
from snapllm.outputs import CacheUse, Usage

Tier: TypeAlias = Literal["hot", "warm", "cold"]

ROUNDING: dict[KvType, float] = {"f16": 0.0, "f32": 0.01, "q8_0": 0.1}
"""By how much log probabilities may differ where cells lie in another order."""
TIGHT_CELLS = 2048
_SPARE_TOKENS = 64  # of the context, for answers
_NUM_ASKED_CALMLY = 4
_WITH_WINDOWS = ("gemma3", "gemma4", "gpt-oss")


@dataclass(frozen=True)
class Setup:
    """How a case's engine is set up."""

    is_calm: bool = True
    """One request at a time, in a KV memory that other prompts left no holes in: then
    answers are the same in bits with any type of KV, as they always are with f16."""
    is_tight: bool = False
    """A KV memory that a few prompts fill."""
    kv_type: KvType = "f16"
    ram_bytes: int = 0
    disk_bytes: int = 0
    draft_tokens: int = 0


class CheckedEngine:
    """An engine with one model, `m`, in a workspace of its own.

    Prompts that have tokens in common name a common root. In a calm setup only those of one
    root are in the KV memory at a time.

    Args:
        path: The model's file.
        folder: For its workspaces.
        setup: How it is set up.
        reference: Knows the answers.
    """

    def __init__(self, path: Path, folder: Path, setup: Setup, reference: Reference) -> None:
        self.setup, self.folder = setup, folder
        self.kv_type: KvType = setup.kv_type
        self.counts: Counter[str] = Counter()
        """Asks, tokens by tier, and whatever else makes cases worth running."""
        self.largest_difference = 0.0
        self._path, self._reference = path, reference
        self._computed: dict[KvType, list[list[int]]] = {}
        self._num_workspaces = 0
        self._root: object = None  # whose tokens are in a calm KV memory
        self._is_fresh = True  # only the disk holds anything
        self._engine = self._open()

    def close(self) -> None:
        """Ends it."""
        self._check_counters()
        self._engine.close()

    def restart(self) -> None:
        """Ends it and starts it anew, in the same workspace."""
        self.close()
        self._engine = self._open()

    def restart_killed(self) -> None:
        """Starts it anew in its workspace as that was before it ended."""
        old = self._workspace
        self._num_workspaces += 1
        _copy_files(old, self._workspace)
        self.close()
        shutil.rmtree(old, ignore_errors=True)
        self._engine = self._open()

    def reload(self, kv_type: KvType) -> None:
        """Loads the model anew, with KV of a type; that of a calm setup stays as it is."""
        self._check_counters()
        self.kv_type = self.setup.kv_type if self.setup.is_calm else kv_type
        self._engine.unload("m")
        self._load(self._engine)
        self._root = None

    @property
    def contexts(self) -> snapllm.contexts.ContextManager:
        """Its contexts. Whoever computes one calls `change_contexts` before and after."""
        return self._engine.contexts

    @property
    def fingerprint(self) -> str:
        """Of the model as it is loaded now."""
        return self._model.info.fingerprint

    def limited(self, prompt: list[int]) -> list[int]:
        """As much of a prompt as can be asked."""
        return prompt[: self._context_size - _SPARE_TOKENS]

    def note_computed(self, tokens: list[int]) -> None:
        """Says what may be cached from now on."""
        self._computed.setdefault(self.kv_type, []).append(tokens)

    def ask(self, prompt: list[int], root: object) -> list[int]:
        """Asks, checks the answer and returns its tokens."""
        self.claim(root)
        result = self._generate(prompt, ANSWER_TOKENS)
        if self._is_fresh:
            assert result.cache.num_hot_tokens == result.cache.num_warm_tokens == 0
            self._is_fresh = False
        self.note_computed(prompt + result.tokens)
        return list(result.tokens)

    def ask_all(
        self, prompts: list[list[int]], max_tokens: int, meanwhile: Callable[[], None]
    ) -> None:
        """Asks all at once; some of them, one after the other, in a calm setup."""
        for prompt in prompts:
            self.note_computed(prompt)
        self._is_fresh = False
        if self.setup.is_calm:
            root = object()
            for prompt in prompts[:_NUM_ASKED_CALMLY]:
                self.ask(prompt, root)
            return
        with ThreadPoolExecutor(len(prompts) + 1) as threads:
            moving = threads.submit(meanwhile)
            results = list(threads.map(lambda p: self._generate(p, max_tokens), prompts))
            moving.result()
        for prompt, result in zip(prompts, results, strict=True):
            self.note_computed(prompt + result.tokens)

    def leave(self, prompt: list[int], root: object, num_chunks: int) -> None:
        """Asks and leaves after so many pieces of the answer."""
        self.claim(root)
        self._is_fresh = False
        self.note_computed(prompt + self._reference.answer(prompt, self.kv_type).tokens)
        stream = self._model.generate(prompt, stream=True, max_tokens=ANSWER_TOKENS, **GREEDY)
        for _ in range(num_chunks):
            next(stream, None)
        stream.close()
        # It ends within a step, but may not have been taken up yet.
        while (stats := self._stats()).num_running + stats.num_waiting > 0:
            time.sleep(0.001)

    def query(self, context_id: str, question: str) -> int:
        """Asks a context, checks the answer, and returns how many tokens were cached."""
        self.claim(context_id)
        self._is_fresh = False
        document = self.contexts.get(context_id).record.content
        assert isinstance(document, str)
        result = self.contexts.query(context_id, question, max_tokens=ANSWER_TOKENS, **GREEDY)
        expected = self._reference.answer_about(document, question, self.kv_type)
        self._check(Answer.of(result.answer.logprobs), expected)
        usage = result.answer.usage
        self._check_usage(usage, result.answer.cache, usage.num_prompt_tokens - 1)
        self.counts["query"] += 1
        if not result.cache_hit:
            self.change_contexts()  # it was computed again
        return usage.num_cached_tokens

    def move(self, tokens: list[int], root: object, tier: Tier) -> None:
        """Moves the KV of tokens, where it is stored and there is room for it."""
        self._is_fresh = False
        if tier == "hot":
            self.claim(root)
        with contextlib.suppress(snapllm.StorageError, snapllm.OutOfMemoryError):
            self._move(tokens, tier)

    def claim(self, root: object) -> None:
        """Takes what others left out of a calm KV memory."""
        if self._root is not root:
            self._clear()
            self._root = root

    def change_contexts(self) -> None:
        """Takes everything out of a calm KV memory, and expects anything anywhere."""
        self._clear()
        self._is_fresh = False

    def _clear(self) -> None:
        if self.setup.is_calm:
            deadline = time.monotonic() + 20
            self._move([], "warm")
            while self._stats().num_kv_cells_used > 0:  # of who left, and ends only now
                assert time.monotonic() < deadline, "cells of nobody"
                self._move([], "warm")
            self._root = None

    def _move(self, tokens: list[int], tier: Tier) -> None:
        info = self._model.info
        prefix = _core.PrefixRef(
            model_id=info.id, fingerprint=info.fingerprint, kv_kind=info.kv_kind, tokens=tokens
        )
        self._engine.runner.core.move_prefix(prefix, tier, [])

    @property
    def _workspace(self) -> Path:
        return self.folder / f"workspace{self._num_workspaces}"

    @property
    def _model(self) -> snapllm.Model:
        return self._engine.model("m")

    @property
    def _context_size(self) -> int:
        return TIGHT_CELLS if self.setup.is_tight else LARGEST_CONTEXT

    def _stats(self) -> _core.ModelStats:
        return self._engine.stats().models[0]

    def _open(self) -> snapllm.Engine:
        engine = snapllm.Engine(
            num_threads=1,
            workspace=self._workspace,
            kv_ram_bytes=self.setup.ram_bytes,
            kv_disk_bytes=self.setup.disk_bytes,
        )
        self._load(engine)
        self._root, self._is_fresh = None, True
        return engine

    def _load(self, engine: snapllm.Engine) -> None:
        engine.load(
            self._path,
            "m",
            context_size=self._context_size,
            kv_cells=self._context_size * (1 if self.setup.is_tight else 2),
            kv_type=self.kv_type,
            draft_tokens=self.setup.draft_tokens,
        )

    def _generate(self, prompt: list[int], max_tokens: int) -> snapllm.Completion:
        known = self._computed.get(self.kv_type, [])
        num_known = max((_num_common(prompt, tokens) for tokens in known), default=0)
        result: snapllm.Completion = self._model.generate(prompt, max_tokens=max_tokens, **GREEDY)
        self._check_usage(result.usage, result.cache, min(num_known, len(prompt) - 1))
        assert result.tokens == [entry.token for entry in result.logprobs]
        expected = self._reference.answer(prompt, self.kv_type, max_tokens)
        self._check(Answer.of(result.logprobs), expected)
        return result

    def _check_usage(self, usage: Usage, use: CacheUse, num_known: int) -> None:
        tiers = (use.num_hot_tokens, use.num_warm_tokens, use.num_cold_tokens)
        assert min(tiers) >= 0 and sum(tiers) == usage.num_cached_tokens <= num_known
        self.counts.update(dict(zip(("hot", "warm", "cold"), tiers, strict=True)))
        self.counts["ask"] += 1

    def _check(self, got: Answer, expected: Answer) -> None:
        largest = difference(got, expected)
        self.largest_difference = max(self.largest_difference, largest)
        # The cells of a window are a ring: where it begins follows from what was restored.
        has_window = self._model.info.architecture in _WITH_WINDOWS
        if self.kv_type == "f16" or (self.setup.is_calm and not has_window):
            assert got == expected, f"not the same bits: log probabilities differ by {largest}"
        assert largest <= ROUNDING[self.kv_type], f"log probabilities differ by {largest}"

    def _check_counters(self) -> None:
        stats = self._engine.stats()
        [model] = stats.models
        assert model.num_failed == 0
        # A piece that is longer than what a prompt takes of it may find no room in a full memory.
        assert self.setup.is_tight or model.num_failed_restores == 0
        store = stats.kv_store
        assert (store.num_read_failures, store.num_write_failures, store.num_damaged) == (0, 0, 0)
        self.counts["preemption"] += model.num_preemptions
        self.counts["ram eviction"] += store.num_ram_evictions
        self.counts["disk eviction"] += store.num_disk_evictions


def _num_common(a: list[int], b: list[int]) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _copy_files(source: Path, target: Path) -> None:
    """Copies a folder that is in use: what goes meanwhile is not there."""
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
