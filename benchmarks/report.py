"""Rows of results: medians with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One measured figure."""

    name: str
    median: float
    low: float
    high: float
    unit: str
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def row(name: str, values: Sequence[float], unit: str, note: str = "") -> Row:
    """The median of repeated measurements, with the lowest and the highest."""
    return Row(name, statistics.median(values), min(values), max(values), unit, note)


Better: TypeAlias = Literal["less", "more"]


def ratio_row(
    name: str, ours: Sequence[float], theirs: Sequence[float], better: Better = "less"
) -> Row:
    """Ours over theirs, of measurements taken in turn; and which side of 1 is the better one."""
    values = [a / b for a, b in zip(ours, theirs, strict=True)]
    return row(f"{name}, ratio", values, "times", f"{better} is better")


def in_turn(cases: Sequence[T], number: int) -> Sequence[T]:
    """The cases of a round: A B, then B A, so that none always goes first."""
    return cases if number % 2 == 0 else cases[::-1]


def interleaved(rounds: int, cases: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measures the cases in turn, so that what the machine does meets all alike."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, measure in in_turn(list(cases.items()), number):
            values[name].append(measure())
    return values


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| | median | low | high | unit | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.name} | {_digits(r.median)} | {_digits(r.low)} | {_digits(r.high)} "
        f"| {r.unit} | {r.note} |"
        for r in rows
    ]
    return "\n".join(lines)


def _digits(value: float) -> str:
    """Three of them, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
