"""Two results of the same benchmarks, one beside the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def compare(before: Path, after: Path) -> str:
    """A Markdown table of the rows of both files with their ranges, and what else differs."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    lines = [
        f"Not the same {what}: {old.get(what)} and {new.get(what)}.\n"
        for what in ("machine", "model", "options")
        if old.get(what) != new.get(what)
    ]
    lines += ["| | before | after | unit | after / before |", "|---|---|---|---|---|"]
    old_rows, new_rows = _rows(old), _rows(new)
    for name in old_rows | new_rows:
        a, b = old_rows.get(name), new_rows.get(name)
        share = f"{b['median'] / a['median']:.2f}" if a and b and a["median"] else ""
        unit = (a or b or {})["unit"]
        lines.append(f"| {name} | {_text(a)} | {_text(b)} | {unit} | {share} |")
    return "\n".join(lines)


def _rows(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{name}: {row['name']}": row
        for name, rows in results["benchmarks"].items()
        for row in rows
    }


def _text(row: dict[str, Any] | None) -> str:
    return f"{row['median']:.3f} ({row['low']:.3f} to {row['high']:.3f})" if row else "missing"
