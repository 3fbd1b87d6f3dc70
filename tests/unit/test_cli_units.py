"""Sizes, times, hosts and origins on the command line, and its tables."""

from __future__ import annotations

import argparse

import pytest

from snapllm.cli.client import table
from snapllm.cli.units import parse_bytes, parse_host, parse_origin, parse_seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("8GiB", 8 << 30),
        ("8 gib", 8 << 30),
        ("1.5MB", 1_500_000),
        ("800MB", 800_000_000),
        ("123", 123),
        ("2TiB", 2 << 40),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("90s", 90), ("10m", 600), ("2h", 7200), ("0.5", 0.5)]
)
def test_times(text: str, expected: float) -> None:
    assert parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1", "8QB", "1e9", "nan", "9999999999999TB", "1 2"])
def test_nonsense_is_refused(text: str) -> None:
    for parse in (parse_bytes, parse_seconds):
        if parse is parse_seconds and text == "9999999999999TB":
            continue
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)


@pytest.mark.parametrize("host", ["localhost", "a.b-c_d.org", "*.example.org", "10.0.0.1", "::1"])
def test_hosts(host: str) -> None:
    assert parse_host(host) == host


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "http://localhost:3000",
        "https://[::1]:8443",
        "vscode-webview://0a1b",
        "app://-",
    ],
)
def test_origins(origin: str) -> None:
    assert parse_origin(origin) == origin


def test_a_table_shows_no_control_characters() -> None:
    shown = table([("NAME", "TIER"), ("evil\n\x1b[31mred", "hot")])
    assert [line.split() for line in shown.splitlines()] == [
        ["NAME", "TIER"],
        [r"evil\n\x1b[31mred", "hot"],
    ]
