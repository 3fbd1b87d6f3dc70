"""What type checkers are told."""

from __future__ import annotations

import sys

import pytest

from snapllm import Model


@pytest.mark.skipif(sys.version_info < (3, 11), reason="overloads are not kept")
@pytest.mark.parametrize("call", [Model.chat, Model.generate])
def test_stream_may_be_decided_at_run_time(call: object) -> None:
    from typing import get_overloads

    kinds = [each.__annotations__["stream"] for each in get_overloads(call)]  # type: ignore[arg-type]
    assert kinds == ["Literal[False]", "Literal[True]", "bool"]
