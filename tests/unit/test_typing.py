"""What type checkers are told."""

from __future__ import annotations

import sys
import typing
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from snapllm import Model


@pytest.mark.skipif(sys.version_info < (3, 11), reason="overloads are not kept")
@pytest.mark.parametrize("call", [Model.chat, Model.generate])
def test_stream_may_be_decided_at_run_time(call: Any) -> None:
    kinds = [each.__annotations__["stream"] for each in typing.get_overloads(call)]
    assert kinds == ["Literal[False]", "Literal[True]", "bool"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="overloads are not kept")
@pytest.mark.parametrize("call", [Model.chat, Model.generate])
def test_a_stream_may_be_closed(call: Any) -> None:
    _, streaming, either = (_returns(each) for each in typing.get_overloads(call))
    assert typing.get_origin(streaming) is Generator
    assert streaming in typing.get_args(either)
    assert either == _returns(call)


@pytest.mark.parametrize("call", [Model.achat_stream, Model.agenerate_stream])
def test_an_asynchronous_stream_may_be_closed(call: Any) -> None:
    assert typing.get_origin(_returns(call)) is AsyncGenerator


def _returns(call: Any) -> Any:
    return eval(call.__annotations__["return"], vars(sys.modules[Model.__module__]))
