"""Two results of the same benchmarks, one beside the other."""

from __future__ import annotations

import json
from pathlib import Path


def compare(before: Path, after: Path) -> str:
    """A Markdown table of the medians that both files have."""
    old, new = (json.loads(path.read_text())["benchmarks"] for path in (before, after))
    lines = ["| | before | after | unit | after / before |", "|---|---|---|---|---|"]
    for name in old.keys() & new.keys():
        medians = {row["name"]: row["median"] for row in old[name]}
        for row in new[name]:
            base = medians.get(row["name"])
            if base is not None:
                share = f"{row['median'] / base:.2f}" if base else ""
                lines.append(
                    f"| {name}: {row['name']} | {base:.3f} | {row['median']:.3f} "
                    f"| {row['unit']} | {share} |"
                )
    return "\n".join(lines)
