"""The upstream sources: where they are kept, and how they come to their place."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CMAKE = shutil.which("cmake")

pytestmark = pytest.mark.skipif(CMAKE is None, reason="there is no CMake")


class Project:
    """A folder with a lock file, and a pip that brings what it pins."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree = folder, folder / "upstream"
        self.lock, self.package = folder / "requirements.lock", folder / "package"
        self.python = folder / "python"
        self.publish("1.0")

    def publish(self, version: str) -> None:
        """Pins a version, which holds a tree with its own name in it."""
        vendor = self.package / f"some_pkg-{version}" / "vendor" / "some"
        (vendor / "docs").mkdir(parents=True)
        (vendor / "CMakeLists.txt").write_text(version)
        archive = self.package / f"some_pkg-{version}.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(vendor.parents[1], vendor.parents[1].name)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        self.lock.write_text(f"some-pkg=={version} \\\n    --hash=sha256:{digest}\n")
        # The folder that pip is to download into comes last.
        self.python.write_text(f'#!/bin/sh\nfor last; do :; done\ncp {archive} "$last"\n')
        self.python.chmod(0o755)

    def fetch(self, **environment: str) -> None:
        script = self.folder / "fetch.cmake"
        script.write_text(
            f"set(Python_EXECUTABLE {self.python})\ninclude({ROOT}/cmake/fetch_source.cmake)\n"
            f"snapllm_fetch_source({self.lock} vendor/some {self.tree} EXCLUDE docs)\n"
        )
        kept = {
            name: text
            for name, text in os.environ.items()
            if name not in ("HOME", "XDG_CACHE_HOME")
        }
        subprocess.run(
            [str(CMAKE), "-P", str(script)],
            cwd=self.folder,
            env={**kept, **environment},
            check=True,
            capture_output=True,
        )

    def archives(self) -> set[str]:
        """Where archives are, but for the one that pip brings."""
        found = self.folder.rglob("*.tar.gz")
        return {str(p.parent.relative_to(self.folder)) for p in found if p.parent != self.package}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("environment", "cache"),
    [
        ({"XDG_CACHE_HOME": "{}/xdg", "HOME": "{}/home"}, "xdg/snapllm/sources"),
        ({"XDG_CACHE_HOME": "", "HOME": "{}/home"}, "home/.cache/snapllm/sources"),
        ({"HOME": "{}/home"}, "home/.cache/snapllm/sources"),
        ({"HOME": ""}, "sources"),
        ({}, "sources"),
        ({"HOME": "/dev/null"}, "sources"),
    ],
)
def test_sources_are_kept_in_the_users_cache_or_else_in_the_build_folder(
    project: Project, environment: dict[str, str], cache: str
) -> None:
    project.fetch(**{name: text.format(project.folder) for name, text in environment.items()})
    assert project.archives() == {cache}
    assert {p.name for p in project.tree.iterdir()} == {"CMakeLists.txt", ".snapllm-lock"}


def test_a_tree_is_replaced_when_its_pin_moves(project: Project) -> None:
    project.fetch()
    project.publish("2.0")
    project.fetch()
    assert (project.tree / "CMakeLists.txt").read_text() == "2.0"
    assert not project.tree.with_name("upstream.unpacking").exists()


def test_a_tree_that_is_shipped_stays_as_it_is(project: Project) -> None:
    project.tree.mkdir()
    (project.tree / "CMakeLists.txt").write_text("shipped")
    project.fetch()
    assert (project.tree / "CMakeLists.txt").read_text() == "shipped"
    assert project.archives() == set()


def test_what_an_unpacking_that_was_killed_left_is_no_shipped_tree(project: Project) -> None:
    scratch = project.tree.with_name("upstream.unpacking")
    for name in ("some_pkg-1.0/vendor/some", "replaced"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "CMakeLists.txt").write_text("half of it")
    project.fetch()
    assert (project.tree / "CMakeLists.txt").read_text() == "1.0"
    assert not scratch.exists()
