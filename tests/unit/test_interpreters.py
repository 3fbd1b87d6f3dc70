"""The package in a subinterpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

_IMPORTING = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
interpreters.run_string(interpreters.create(), '''
try:
    import snapllm
except ImportError as error:
    print(error, flush=True)
''')
import snapllm
print(snapllm.__version__ != "")
"""


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="the module may be gone")
def test_a_subinterpreter_is_refused_and_the_main_one_goes_on() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _IMPORTING], timeout=60, capture_output=True, text=True
    )
    refusal, goes_on = run.stdout.splitlines()
    assert "subinterpreter" in refusal and goes_on == "True", run.stderr
