"""Installs what a `package.json` names, for tests that run clients made for Node."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


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
    try:
        subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=300, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        if os.environ.get("SNAPLLM_REQUIRE_NODE"):
            raise
        pytest.skip(f"the packages cannot be installed: {error}")
    return target
