"""Rows of results: medians with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


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


def ratio_row(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    """Ours over theirs, of measurements taken in turn."""
    values = [a / b for a, b in zip(ours, theirs, strict=True)]
    return row(f"{name}, ratio", values, "times")


def interleaved(rounds: int, cases: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measures the cases in turn, A B A B, so that what the machine does meets all alike."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            values[name].append(measure())
    return values


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| | median | low | high | unit | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.name} | {r.median:.3f} | {r.low:.3f} | {r.high:.3f} | {r.unit} | {r.note} |"
        for r in rows
    ]
    return "\n".join(lines)
