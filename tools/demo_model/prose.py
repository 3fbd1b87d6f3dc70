"""English that fills long prompts: the documentation within Python's standard library.

Nothing is asked about it. It is there so that instructions, tools and questions have to
be found among other text, as they are in what coding agents send.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from functools import lru_cache
from pathlib import Path
from pydoc_data.topics import topics

_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo"}
_MIN_CHARS, _MAX_CHARS = 40, 900


def _docstrings(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for text in found if text]


@lru_cache(maxsize=1)
def paragraphs() -> tuple[str, ...]:
    """All paragraphs of a useful length, always in the same order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(f for f in root.rglob("*.py") if not _SKIPPED & set(f.relative_to(root).parts))
    texts = [text for file in files for text in _docstrings(file)]
    texts += [topics[name] for name in sorted(topics)]
    parts = (part.strip() for text in texts for part in re.split(r"\n\s*\n", text))
    return tuple(dict.fromkeys(p[:_MAX_CHARS] for p in parts if len(p) >= _MIN_CHARS))


def words(rng: random.Random, count: int) -> str:
    """`count` words that follow each other."""
    found = re.findall(r"[A-Za-z]+", rng.choice(paragraphs()))
    start = rng.randint(0, max(0, len(found) - count))
    return " ".join(found[start : start + count]) or "word"


def sentence(rng: random.Random) -> str:
    """One sentence or so."""
    text = " ".join(rng.choice(paragraphs()).split())
    end = text.find(". ", 30)
    return text[: end + 1] if 0 < end < 240 else text[:160]


def block(rng: random.Random, num_chars: int) -> str:
    """About `num_chars` characters in paragraphs, lists and headings."""
    parts: list[str] = []
    left = num_chars
    while left > 0:
        kind = rng.random()
        if kind < 0.55:
            part = rng.choice(paragraphs())
            if rng.random() < 0.6:
                part = " ".join(part.split())
        elif kind < 0.85:
            mark = rng.choice(("- ", "- ", " - ", "* "))
            part = "\n".join(mark + sentence(rng) for _ in range(rng.randint(2, 7)))
        else:
            words = rng.choice(paragraphs()).split()[: rng.randint(1, 4)]
            part = rng.choice(("# ", "## ", "")) + " ".join(words)
        part = part[: max(left, 30)]
        parts.append(part)
        left -= len(part) + 2
    return "\n\n".join(parts)
