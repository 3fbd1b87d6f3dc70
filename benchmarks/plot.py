"""The ratios of a result as a picture: a dot for each median, a line for its spread.

Green where the median is on the better side of 1, red where it is not.
"""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path

LABEL_WIDTH, PLOT_WIDTH, LINE_HEIGHT, MARGIN = 520, 420, 22, 34
TICKS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def plot(results: Path, svg: Path) -> None:
    """Draws every ratio on a logarithmic axis.

    Args:
        results: JSON that a run has written.
        svg: The picture to write.
    """
    benchmarks = json.loads(results.read_text())["benchmarks"]
    rows = [
        (f"{name}: {row['name'].removesuffix(', ratio')}", row)
        for name, found in benchmarks.items()
        for row in found
        if row["unit"] == "times"
    ]
    height = MARGIN + len(rows) * LINE_HEIGHT + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL_WIDTH + PLOT_WIDTH + 20}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for tick in TICKS:
        colour = "#444" if tick == 1.0 else "#ddd"
        parts.append(
            f'<line x1="{_x(tick)}" x2="{_x(tick)}" y1="{MARGIN - 8}" y2="{height - 8}" '
            f'stroke="{colour}"/>'
            f'<text x="{_x(tick)}" y="{MARGIN - 14}" text-anchor="middle">{tick:g}</text>'
        )
    for number, (label, row) in enumerate(rows):
        y = MARGIN + number * LINE_HEIGHT + LINE_HEIGHT // 2
        better_below = row["note"].startswith("less")
        colour = "#2a7d2a" if (row["median"] < 1) == better_below else "#c0392b"
        parts.append(
            f'<text x="{LABEL_WIDTH - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>'
            f'<line x1="{_x(row["low"])}" x2="{_x(row["high"])}" y1="{y}" y2="{y}" '
            f'stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{_x(row["median"])}" cy="{y}" r="4" fill="{colour}"/>'
        )
    svg.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _x(ratio: float) -> float:
    """Where on the axis; what lies outside of it stands at its end."""
    lowest, highest = math.log2(TICKS[0]), math.log2(TICKS[-1])
    value = min(max(math.log2(max(ratio, 1e-9)), lowest), highest)
    return round(LABEL_WIDTH + (value - lowest) / (highest - lowest) * PLOT_WIDTH, 1)
