"""Facts and counters of the core, so that a prompt shows what they say."""

from __future__ import annotations

from snapllm import _core

_FACTS: tuple[type, ...] = (
    _core.ModelInfo,
    _core.EngineStats,
    _core.ModelStats,
    _core.MemoryStats,
    _core.KvStoreStats,
    _core.LatencyHistogram,
)


def _describe(facts: object) -> str:
    kind = type(facts)
    names = [name for name in vars(kind) if not name.startswith("_")]
    values = ((name, getattr(facts, name)) for name in names)
    shown = ", ".join(f"{name}={value!r}" for name, value in values if not callable(value))
    return f"{kind.__name__}({shown})"


def add_reprs() -> None:
    """Gives the extension's types a `repr`."""
    for kind in _FACTS:
        kind.__repr__ = _describe  # type: ignore[assignment, method-assign]
