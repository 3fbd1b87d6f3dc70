"""What configuring the build hands on and installs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CMAKE = shutil.which("cmake")
PROJECTS = {"llama.cpp": "NOTICE", "stable-diffusion.cpp": "NOTICE-diffusion"}
PYBIND11 = """
function(pybind11_add_module name type extras)
  add_library(${name} ${type} ${ARGN})
endfunction()
"""

pytestmark = pytest.mark.skipif(CMAKE is None, reason="there is no CMake")


def cmake(*arguments: str | Path) -> None:
    done = subprocess.run([str(CMAKE), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that is configured, with the sources that are here and options of ggml."""
    if not all((ROOT / "third_party" / name / "upstream").exists() for name in PROJECTS):
        pytest.skip("the upstream sources are not fetched")
    folder = tmp_path_factory.mktemp("build")
    pybind11 = tmp_path_factory.mktemp("pybind11")
    (pybind11 / "pybind11Config.cmake").write_text(PYBIND11)
    (pybind11 / "LICENSE").write_text("Copyright of pybind11")
    cmake(
        *("-S", ROOT, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}"),
        *(f"-Dpybind11_DIR={pybind11}", "-DCMAKE_CXX_FLAGS=-DMARK=1 -DOTHER"),
        *("-DCMAKE_PREFIX_PATH=/opt/x;/opt/y", "-DCUDAToolkit_ROOT=/opt/cuda"),
        *("-DCMAKE_CUDA_ARCHITECTURES=80;90", "-DGGML_CUDA_NO_VMM=ON", "-DGGML_OPENMP=OFF"),
    )
    return folder


def handed_on(build: Path) -> set[str]:
    """The options that the image extension is configured with."""
    (command,) = (build / "snapllm_diffusion-prefix" / "tmp").glob("*-cfgcmd.txt")
    return {word for word in command.read_text().split(";") if word.startswith("-D")}


def test_the_image_extension_is_built_with_the_same_settings(build: Path) -> None:
    given = {
        *("-DCMAKE_CXX_FLAGS=-DMARK=1 -DOTHER", "-DCMAKE_PREFIX_PATH=/opt/x|/opt/y"),
        *("-DCUDAToolkit_ROOT=/opt/cuda", "-DCMAKE_CUDA_ARCHITECTURES=80|90"),
    }
    ggml = {"-DGGML_CUDA_NO_VMM=ON", "-DGGML_OPENMP=OFF"}
    for _ in range(2):
        found = handed_on(build)
        assert given <= found
        # Nothing of what llama.cpp's tree caches: the other ggml has defaults of its own.
        assert {option for option in found if option.startswith("-DGGML_")} == ggml
        cmake(build, "-DGGML_LLAMAFILE=OFF")
        ggml.add("-DGGML_LLAMAFILE=OFF")


def test_every_work_in_a_notice_has_its_licence_installed(build: Path, tmp_path: Path) -> None:
    cmake("--install", build, "--component", "licences", "--prefix", tmp_path)
    folder = tmp_path / "snapllm" / "third_party_licenses"
    named = set(PROJECTS.values())
    for project, name in PROJECTS.items():
        notice = (folder / name).read_text()
        assert notice == (ROOT / "third_party" / project / "NOTICE").read_text()
        rows = [re.split(r" {2,}", line) for line in notice.split("\n\n")[1].splitlines()]
        assert len(rows) > 5
        for work, _, _, licence in rows:
            text = (folder / licence).read_text().lower()
            assert "copyright" in text or "public domain" in text, work
            named.add(licence)
    assert {file.name for file in folder.iterdir()} == named
