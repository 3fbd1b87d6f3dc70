"""A process with an engine forks: the child can end, and touches nothing of its parent's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(script: str, expected_status: int = 0) -> None:
    """Runs the script, whose children have 20 s each."""
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, timeout=100).returncode == expected_status


def test_a_child_can_end() -> None:
    run(
        """
import os, sys, signal, snapllm
engine = snapllm.Engine()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    sys.exit(3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
        expected_status=3,
    )


def test_a_child_is_refused_the_engine_and_can_make_its_own() -> None:
    run("""
import os, sys, snapllm
engine = snapllm.Engine(num_threads=1)
model = engine.load_demo(mmproj_path="")
pid = os.fork()
if pid == 0:
    for call in (
        lambda: model.generate("x"),
        lambda: model.chat("x"),
        lambda: engine.contexts.ingest("a b", "demo"),
        lambda: engine.load_demo("again"),
        lambda: model.info,
        lambda: model.tokenize("x"),
        lambda: model.detokenize([5]),
        lambda: engine.model("demo"),
        lambda: engine.switch("demo"),
        lambda: engine.pin("demo"),
        lambda: engine.unload("demo"),
    ):
        try:
            call()
        except snapllm.EngineClosedError as error:
            if "process this one was forked from" in str(error):
                continue
        sys.exit(1)
    if "of another process" not in repr(engine):
        sys.exit(3)
    with snapllm.Engine(num_threads=1) as own:
        text = own.load_demo(mmproj_path="").chat("What is the capital of France?").content
    sys.exit(0 if "Paris" in text else 2)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(status or not model.generate("x", max_tokens=2, ignore_eos=True).tokens)
""")


def test_a_child_that_drops_a_stream_ends_whatever_its_parent_was_doing() -> None:
    """Its parent's threads hold the engine's locks at many a fork."""
    run("""
import os, signal, sys, threading, snapllm
engine = snapllm.Engine(num_threads=1)
model = engine.load_demo(mmproj_path="")
def start():
    stream = model.generate("x", stream=True, max_tokens=1000, ignore_eos=True)
    next(stream)
    return stream
def work():
    while True:
        model.tokenize("a b c")
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
stream = start()
for _ in range(50):
    if next(stream, None) is None:
        stream = start()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        del stream
        engine.models(), engine.stats(), engine.active_model
        os._exit(0)
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        os._exit(abs(status))
os._exit(0)
""")


def test_a_child_does_not_take_the_outputs_of_its_parents_stream() -> None:
    run("""
import os, signal, sys, time, snapllm
engine = snapllm.Engine(num_threads=1)
model = engine.load_demo(mmproj_path="")
stream = model.generate("x", stream=True, max_tokens=300, ignore_eos=True)
next(stream)
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    try:
        for _ in stream:
            pass
    except snapllm.EngineClosedError:
        os._exit(0)
    os._exit(2)
signal.alarm(60)
[*_, last] = stream
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(status or last.finish.usage.num_generated_tokens != 300)
""")


def test_a_child_reads_no_counters_while_its_parent_does() -> None:
    run("""
import os, signal, threading, snapllm
engine = snapllm.Engine(num_threads=1)
engine.load_demo(mmproj_path="")
def work():
    while True:
        engine.totals.read()
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        stats, totals = engine.totals.read()
        os._exit(len(stats.models) + len(totals))
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        os._exit(abs(status))
os._exit(0)
""")


def test_a_workspace_can_be_opened_again_while_a_child_lives() -> None:
    run("""
import os, signal, tempfile, snapllm
with tempfile.TemporaryDirectory() as folder:
    engine = snapllm.Engine(workspace=folder, num_threads=1)
    began, lives_on = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        os.close(lives_on[1])
        os.write(began[1], b"x")
        os.read(lives_on[0], 1)
        os._exit(0)
    os.read(began[0], 1)
    try:  # the child has not freed what its parent still uses
        snapllm.Engine(workspace=folder, num_threads=1)
        os._exit(1)
    except snapllm.InvalidRequestError:
        pass
    engine.close()
    snapllm.Engine(workspace=folder, num_threads=1).close()
    os.close(lives_on[1])
    os.waitpid(pid, 0)
""")
