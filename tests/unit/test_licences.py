"""The works that the extensions are built from, and their licences beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import snapllm

ROOT = Path(__file__).parents[2]
INSTALLED = Path(snapllm.__file__).parent / "third_party_licenses"
RECIPES = ("cmake/licences.cmake", "cmake/diffusion.cmake", "third_party/llama.cpp/CMakeLists.txt")


def licences(notice: Path) -> dict[str, str]:
    """The file with each work's licence, by the work's name."""
    rows = [re.split(r" {2,}", line) for line in notice.read_text().split("\n\n")[1].splitlines()]
    assert all(len(row) == 4 for row in rows), rows
    return {row[0]: row[3] for row in rows}


@pytest.mark.parametrize("project", ["llama.cpp", "stable-diffusion.cpp"])
def test_every_licence_that_a_notice_names_is_installed_by_the_build(project: str) -> None:
    recipes = "".join((ROOT / recipe).read_text() for recipe in RECIPES)
    installed = re.findall(r"snapllm_(?:install|extract)_licence\((LICENSE\S+)", recipes)
    named = licences(ROOT / "third_party" / project / "NOTICE")
    assert len(named) > 5
    assert set(named.values()) <= set(installed)


@pytest.mark.parametrize("notice", ["NOTICE", "NOTICE-diffusion"])
def test_every_work_has_its_licence_beside_the_extensions(notice: str) -> None:
    if not (INSTALLED / notice).exists():
        pytest.skip("the extension is not one that CMake installed")
    for work, name in licences(INSTALLED / notice).items():
        text = (INSTALLED / name).read_text().lower()
        assert "copyright" in text or "public domain" in text, work
