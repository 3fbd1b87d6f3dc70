"""Snapshots never change an answer: generated histories, each answer against its own run.

Environment: SNAPLLM_EXACTNESS_CASES is how many cases are run (default 140, always the same;
`--hypothesis-seed` chooses others).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from exact_answers import LARGEST_CONTEXT, KvType, Reference
from exact_engine import CheckedEngine, Setup, Tier
from exact_world import Step, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nano_models import GEMMA3_WINDOW, Architecture, make_nano_model

ARCHITECTURES = get_args(Architecture)
CASES = int(os.environ.get("SNAPLLM_EXACTNESS_CASES", "0"))
DEFAULT_CASES = 140
MAX_STEPS = 10
ACTIONS = (
    ["new", "turn"] * 4
    + ["move"] * 3
    + ["query", "talk", "move_context"] * 2
    + ["ingest", "again", "leave", "fork", "append", "copy", "delete", "restart", "kill", "reload"]
)
LAST_STEPS = [Step("restart"), Step("query"), Step("again")]
CROWD_ACTIONS = [*ACTIONS, "fork", "outgrow"]

# Around what is kept at all, windows, blocks, physical and logical batches.
_EDGES = [16, GEMMA3_WINDOW, 256, 512, 768, 1024]
_FAR_EDGES = [2048, 2560, 4096, 6000]


def _around(edges: list[int]) -> list[int]:
    return [edge + offset for edge in edges for offset in (0, -1, 1, -2, 2)]


_near = st.sampled_from([1, 2, 3, *_around(_EDGES)])
_far = st.sampled_from(_around(_FAR_EDGES))
_lengths = st.one_of([_near] * 7 + [st.integers(1, 90)] * 2 + [st.integers(1, 700), _far])
_cuts = st.one_of(st.just(0), _near, st.integers(0, 700), _near)
_kv_types = st.sampled_from(get_args(KvType))
_bytes = st.sampled_from([0, 0, 1 << 20, 1 << 19])


def _steps(actions: list[str]) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        action=st.sampled_from(actions),
        which=st.integers(0, 7),
        length=_lengths,
        cut=_cuts,
        tier=st.sampled_from(get_args(Tier)),
        kv_type=_kv_types,
    )


_calm_setups = st.builds(
    Setup,
    ram_bytes=_bytes,
    disk_bytes=_bytes,
    draft_tokens=st.sampled_from([0, 0, 4]),
)
_crowded_setups = st.builds(
    Setup,
    is_calm=st.just(False),
    is_tight=st.sampled_from([True, True, False]),
    kv_type=st.one_of(st.just("f16"), _kv_types),
    ram_bytes=_bytes,
    disk_bytes=_bytes,
    draft_tokens=st.sampled_from([0, 0, 4]),
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exactness")
    return make_nano_model(
        folder / "m.gguf", request.param, context_size=LARGEST_CONTEXT, head_size=32
    )


@pytest.fixture(scope="module")
def reference(path: Path) -> Iterator[Reference]:
    reference = Reference(path)
    yield reference
    reference.close()


def run_case(path: Path, reference: Reference, setup: Setup, steps: list[Step]) -> CheckedEngine:
    """Runs a case in a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=path.parent))
    engine = CheckedEngine(path, folder, setup, reference)
    try:
        world = World(engine)
        world.new(Step("new", length=300))
        world.ingest(Step("ingest", length=500))
        for step in [*steps, *LAST_STEPS]:
            getattr(world, step.action)(step)
    finally:
        engine.close()
        shutil.rmtree(folder, ignore_errors=True)
    return engine


def _settings(share: float) -> settings:
    return settings(
        max_examples=max(1, int(share * (CASES or DEFAULT_CASES) / len(ARCHITECTURES))),
        derandomize=CASES == 0,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def _run_all(
    path: Path,
    reference: Reference,
    setups: st.SearchStrategy[Setup],
    actions: list[str],
    share: float,
) -> Counter[str]:
    """Runs a share of the cases; returns what they counted together."""
    counts: Counter[str] = Counter()

    @_settings(share)
    @given(setups, st.lists(_steps(actions), min_size=MAX_STEPS // 2, max_size=MAX_STEPS))
    def run(setup: Setup, steps: list[Step]) -> None:
        counts.update(run_case(path, reference, setup, steps).counts)
        counts["case"] += 1

    run()
    print(f"\n{path.parent.name}: {dict(counts)}")
    return counts


def test_alone_in_the_kv_memory_answers_are_the_same_in_bits(
    path: Path, reference: Reference
) -> None:
    counts = _run_all(path, reference, _calm_setups, ACTIONS, share=0.5)
    assert min(counts["cold"], counts["query"]) > 0


def test_in_a_crowd_answers_are_the_same_but_for_rounding(path: Path, reference: Reference) -> None:
    counts = _run_all(path, reference, _crowded_setups, CROWD_ACTIONS, share=0.5)
    assert min(counts["cold"], counts["query"]) > 0
