"""The arrows of the design: who may know of whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "python" / "snapllm"
CPP = ROOT / "cpp"

_UPSTREAM_HEADERS = re.compile(
    r'#include\s*[<"](llama|ggml|gguf|common|sampling|chat|mtmd|peg-parser|json-schema)[\w-]*\.h'
)


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports at run time."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("snapllm")}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("*.py", "snapllm.protocol"),
        ("*.py", "snapllm.server"),
        ("protocol/*.py", "snapllm.server"),
        ("protocol/*.py", "snapllm.engine"),
        ("server/*.py", "snapllm.cli"),
    ],
)
def test_python_layers_point_inwards(folder: str, forbidden: str) -> None:
    files = list(PYTHON.glob(folder))
    assert files
    offenders = [
        f"{path.name}: {name}"
        for path in files
        for name in imports_of(path)
        if name == forbidden or name.startswith(forbidden + ".")
    ]
    assert offenders == []


def test_only_the_backend_and_chat_folders_know_llama_cpp() -> None:
    files = [p for p in CPP.rglob("*") if p.suffix in (".h", ".cc")]
    assert len(files) > 30
    knowing = {str(p.relative_to(CPP)) for p in files if _UPSTREAM_HEADERS.search(p.read_text())}
    assert knowing, "the pattern finds nothing at all"
    assert {name for name in knowing if not name.startswith(("src/backend/", "src/chat/"))} == set()


def test_the_public_cpp_headers_include_only_each_other_and_the_standard_library() -> None:
    for path in (CPP / "include" / "snapllm").glob("*.h"):
        included = re.findall(r'#include\s*[<"]([^>"]+)[>"]', path.read_text())
        assert all("/" not in name or name.startswith("snapllm/") for name in included), path


def test_no_module_speaks_the_wire_format_outside_of_protocol() -> None:
    offenders = [
        path.name
        for path in (PYTHON / "server").glob("*.py")
        if '"choices"' in path.read_text() or "chat.completion" in path.read_text()
    ]
    assert offenders == []


def test_image_models_know_no_protocol_and_no_engine() -> None:
    files = list((PYTHON / "diffusion").glob("*.py"))
    assert len(files) > 8
    outer = ("snapllm.protocol", "snapllm.server", "snapllm.engine", "snapllm.cli")
    offenders = [
        f"{path.name}: {name}"
        for path in files
        for name in imports_of(path)
        if name.startswith(outer)
    ]
    assert offenders == []


def test_the_server_starts_without_what_only_pictures_need() -> None:
    """NumPy would be a fifth of its start."""
    program = "import sys, snapllm.server.run; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
