"""What the server's log says of the files of the KV store."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import cast

import pytest

from snapllm.engine import Engine
from snapllm.server.store_log import StoreLog


@pytest.mark.parametrize(
    ("counter", "said"),
    [
        ("num_damaged", "were removed from the workspace: 2 so far"),
        ("num_read_failures", "could not be read from the workspace and were left: 2 so far"),
        ("num_write_failures", "could not be written to the workspace: 2 so far"),
    ],
)
def test_each_kind_of_trouble_is_said_once(
    counter: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    counts = SimpleNamespace(num_damaged=0, num_read_failures=0, num_write_failures=0)
    stats = SimpleNamespace(kv_store=counts)
    store_log = StoreLog(cast(Engine, SimpleNamespace(stats=lambda: stats)))
    with caplog.at_level(logging.WARNING, logger="snapllm.store"):
        store_log.look()
        assert not caplog.records
        setattr(counts, counter, 2)
        store_log.look()
        store_log.look()
    assert len(caplog.records) == 1
    assert said in caplog.text
