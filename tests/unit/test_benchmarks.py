"""Each benchmark runs and reports; none asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
BESIDE_UPSTREAM = ("decode", "documents", "serve", "agent", "memory", "images")


@pytest.mark.slow
def test_every_benchmark_runs_on_the_demo_model(tmp_path: Path) -> None:
    names = [
        "startup",
        "switch",
        "decode",
        "draft",
        "context",
        "documents",
        "turns",
        "serve",
        "agent",
        "memory",
        "images",
        "vision",
        "overhead",
        "long_prompt",
    ]
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", *names, "--rounds", "1", "--tokens", "4"]
    command += ["--threads", "1", "--prompt-tokens", "300", "--lengths", "200"]
    command += ["--streams", "1,4"]
    upstream = os.environ.get("SNAPLLM_UPSTREAM_BIN")
    if upstream:
        command += ["--upstream", upstream]
    run = subprocess.run(
        [*command, "--json", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(output.read_text())
    assert list(results["benchmarks"]) == names
    for name, rows in results["benchmarks"].items():
        assert rows and all(row["median"] >= 0 for row in rows), name
    for name in BESIDE_UPSTREAM if upstream else ():
        names_of_rows = [row["name"] for row in results["benchmarks"][name]]
        assert any(each.endswith("ratio") for each in names_of_rows), names_of_rows
    equal = [row for row in results["benchmarks"]["agent"] if ", answers as " in row["name"]]
    assert len(equal) == (10 if upstream else 6)
    assert {(row["low"], row["unit"]) for row in equal} == {(21, "of 21")}, equal
    rows = {row["name"]: row["median"] for row in results["benchmarks"]["switch"]}
    assert rows["answers of the right model"] == 100
    compare = [sys.executable, "-m", "benchmarks", "compare"]
    compare += ["--baseline", str(output), "--json", str(output)]
    table = subprocess.run(compare, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "| 1.00 |" in table


def test_the_plot_shows_every_ratio(tmp_path: Path) -> None:
    row = {"median": 0.5, "low": 0.25, "high": 0.75, "note": "less is better"}
    rows = [
        {"name": "a < b, ratio", "unit": "times", **row},
        {"name": "far off, ratio", "unit": "times", **row, "high": 1000.0},
        {"name": "c", "unit": "ms", **row},
    ]
    results, picture = tmp_path / "results.json", tmp_path / "plot.svg"
    results.write_text(json.dumps({"benchmarks": {"serve": rows}}))
    command = [sys.executable, "-m", "benchmarks", "plot", "--json", str(results)]
    subprocess.run([*command, "--svg", str(picture)], cwd=ROOT, check=True)
    svg = ElementTree.parse(picture).getroot()
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"serve: a < b", "serve: far off"} < set(texts) and "serve: c" not in texts
    width = float(svg.attrib["width"])
    for line in svg.iter("{http://www.w3.org/2000/svg}line"):
        assert 0 < float(line.attrib["x1"]) <= float(line.attrib["x2"]) < width
