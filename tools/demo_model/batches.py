"""Token batches from generated dialogues, made in a process of their own."""

from __future__ import annotations

import multiprocessing as mp
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from chatml import Dialogue, render
from mixture import make_dialogue
from tokenizers import Tokenizer
from torch import Tensor

MAX_ROW_TOKENS = 2816


@dataclass(frozen=True)
class Row:
    """A tokenised dialogue; `learned[i]` says that token i is an answer's."""

    tokens: list[int]
    learned: list[bool]


def tokenize(tokenizer: Tokenizer, dialogue: Dialogue) -> Row:
    tokens: list[int] = []
    learned: list[bool] = []
    for text, is_learned in render(dialogue):
        ids = tokenizer.encode(text).ids
        tokens += ids
        learned += [is_learned] * len(ids)
    return Row(tokens, learned)


def _to_batch(rows: list[Row]) -> tuple[Tensor, Tensor]:
    length = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.int32)
    weights = torch.zeros(len(rows), length, dtype=torch.int8)  # 0 padding, 1 prompt, 2 answer
    for i, row in enumerate(rows):
        size = len(row.tokens)
        tokens[i, :size] = torch.tensor(row.tokens, dtype=torch.int32)
        weights[i, :size] = torch.tensor(row.learned, dtype=torch.int8) + 1
    return tokens, weights


def make_batches(tokenizer: Tokenizer, rng: random.Random, progress: float,
                 batch_tokens: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of rows of similar length from a pool of dialogues, in random order."""
    rows = [tokenize(tokenizer, make_dialogue(rng, progress)) for _ in range(600)]
    rows = sorted((r for r in rows if len(r.tokens) <= MAX_ROW_TOKENS), key=lambda r: len(r.tokens))
    batches: list[tuple[Tensor, Tensor]] = []
    current: list[Row] = []
    for row in rows:
        if current and (len(current) + 1) * len(row.tokens) > batch_tokens:
            batches.append(_to_batch(current))
            current = []
        current.append(row)
    if current:
        batches.append(_to_batch(current))
    rng.shuffle(batches)
    return batches


def _produce(path: str, seed: int, batch_tokens: int, progress: Any, queue: Any) -> None:
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(path)
    rng = random.Random(seed)
    while True:
        for batch in make_batches(tokenizer, rng, progress.value, batch_tokens):
            queue.put((batch[0].numpy(), batch[1].numpy()))


def start_producer(path: str, seed: int, batch_tokens: int) -> tuple[Callable[[float], tuple[Tensor, Tensor]], Any]:
    """Starts the process; returns a function from the progress to the next batch."""
    context = mp.get_context("spawn")
    progress = context.Value("d", 0.0)
    queue = context.Queue(maxsize=40)
    process = context.Process(target=_produce, args=(path, seed, batch_tokens, progress, queue), daemon=True)
    process.start()

    def next_batch(current: float) -> tuple[Tensor, Tensor]:
        progress.value = current
        tokens, weights = queue.get()
        return torch.from_numpy(tokens), torch.from_numpy(weights)

    return next_batch, process
