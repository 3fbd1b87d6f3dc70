"""The results as tables in a page of the documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.report import Row, table

BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def write_page(results: Path, page: Path) -> None:
    """Puts the tables of a run between the page's two marks.

    Args:
        results: JSON that a run has written.
        page: Markdown with both marks.
    """
    text = page.read_text()
    head, tail = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(text[:head] + tables(json.loads(results.read_text())) + text[tail:])


def tables(results: dict[str, Any]) -> str:
    """What was measured on which machine, and a table for each benchmark."""
    machine = results["machine"]
    parts = [
        f"\n{machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}; SnapLLM {machine['snapllm']} ({machine['commit']}); "
        f"`{results['model']}`; {results['options']}.\n"
    ]
    for name, rows in results["benchmarks"].items():
        parts.append(f"\n### {name}\n\n{table([Row(**row) for row in rows])}\n")
    return "".join(parts)
