"""Batches of conversations about pictures, made in processes of their own."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import producers
import torch
from scenes import Scene, ask, ask_both, draw, make_scene
from tokenizers import Tokenizer
from torch import Tensor
from tower import TowerConfig, fit

PICTURE = -1
"""Stands for an embedding of a picture in a row of tokens."""
_ROWS_IN_POOL = 8


@dataclass(frozen=True)
class Row:
    """One conversation; `learned[i]` says that token i is an answer's."""

    tokens: list[int]
    learned: list[bool]
    pictures: list[np.ndarray]


@dataclass(frozen=True)
class Batch:
    """Tokens (rows, length), 1 where they are learned, and the rows' pictures."""

    tokens: Tensor
    learned: Tensor
    pictures: Tensor

    def to(self, device: str) -> Batch:
        return Batch(self.tokens.to(device), self.learned.to(device), self.pictures.to(device))


class RowMaker:
    """Makes rows; text is cut where pictures stand and tokenised piece by piece, as mtmd does."""

    def __init__(self, tokenizer: Tokenizer, config: TowerConfig) -> None:
        self._tokenizer = tokenizer
        self._config = config

    def make(self, rng: random.Random) -> Row:
        row = Row([], [], [])
        if rng.random() < 0.15:
            self._text(row, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
        scenes = [make_scene(rng) for _ in range(1 if rng.random() < 0.92 else 2)]
        for number in range(rng.choice((1, 2, 3))):
            thinking = rng.random() < 0.12
            question = ask(rng, scenes[0]) if len(scenes) == 1 else ask_both(rng, *scenes)
            self._text(row, "<|im_start|>user\n")
            if number > 0:
                self._text(row, question.text)
            else:
                self._pictures_and_text(rng, row, scenes, question.text)
            self._text(row, "<|im_end|>\n<|im_start|>assistant\n")
            if thinking:
                reasoning = f"<think>\nI look at the picture: {question.span}\n</think>\n\n"
                self._text(row, f"{reasoning}{question.answer}<|im_end|>", learned=True)
            else:
                self._text(row, "<think>\n\n</think>\n\n")
                self._text(row, f"{question.answer}<|im_end|>", learned=True)
            self._text(row, "\n")
            if len(scenes) > 1:
                break
        return row

    def _pictures_and_text(
        self, rng: random.Random, row: Row, scenes: list[Scene], text: str
    ) -> None:
        joint = "" if rng.random() < 0.3 else "\n"
        first = rng.random() < 0.85
        if not first:
            self._text(row, text + joint)
        for number, scene in enumerate(scenes):
            if number:
                self._text(row, joint)
            row.pictures.append(np.asarray(fit(draw(rng, scene), self._config.image_size)))
            row.tokens.extend([PICTURE] * self._config.num_patches)
            row.learned.extend([False] * self._config.num_patches)
        if first:
            self._text(row, joint + text)

    def _text(self, row: Row, text: str, learned: bool = False) -> None:
        ids = self._tokenizer.encode(text).ids
        row.tokens.extend(ids)
        row.learned.extend([learned] * len(ids))


def _to_batch(rows: list[Row]) -> tuple[np.ndarray, ...]:
    length = max(len(row.tokens) for row in rows)
    tokens = np.zeros((len(rows), length), np.int64)
    learned = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = row.tokens
        learned[i, : len(row.tokens)] = row.learned
    pictures = np.stack([picture for row in rows for picture in row.pictures])
    return tokens, learned, pictures


def _produce(seed: int, path: str, num_rows: int, queue: Any) -> None:
    torch.set_num_threads(1)
    maker = RowMaker(Tokenizer.from_file(path), TowerConfig())
    rng = random.Random(seed)
    while True:
        pool = sorted(
            (maker.make(rng) for _ in range(num_rows * _ROWS_IN_POOL)), key=lambda r: len(r.tokens)
        )
        batches = [pool[i : i + num_rows] for i in range(0, len(pool), num_rows)]
        rng.shuffle(batches)
        for rows in batches:
            queue.put(_to_batch(rows))


def start_producers(
    path: str, seed: int, num_rows: int, count: int
) -> tuple[Callable[[], Batch], Callable[[], None]]:
    """Starts `count` processes; returns what gives the next batch, and what ends them."""
    take, stop = producers.start(_produce, seed, path, num_rows, count=count, queue_size=24)
    return lambda: Batch(*(torch.from_numpy(part) for part in take())), stop
