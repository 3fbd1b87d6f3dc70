"""Installs what a `package.json` names, for tests that run clients made for Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

NUM_TRIES = 3
WAIT_S = 10


def installed(source: Path, target: Path) -> Path:
    """Copies a folder and installs its packages there; skips the test where that cannot be done.

    Environment: with SNAPLLM_REQUIRE_NODE the test fails instead.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        if os.environ.get("SNAPLLM_REQUIRE_NODE"):
            pytest.fail("node and npm are required and not there")
        pytest.skip("needs node and npm")
    shutil.copytree(source, target, dirs_exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--fetch-retries=1"]
    is_required = bool(os.environ.get("SNAPLLM_REQUIRE_NODE"))
    why = ""
    # Where they are required, a moment without the registry is no failure yet.
    for number in range(NUM_TRIES if is_required else 1):
        if number > 0:
            time.sleep(WAIT_S)
        try:
            subprocess.run(
                command, cwd=target, capture_output=True, text=True, timeout=300, check=True
            )
            return target
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            why = f"the packages cannot be installed: {error}\n{error.stderr}"
    if is_required:
        pytest.fail(why)
    pytest.skip(why)
