"""What is noted about a request."""

from __future__ import annotations

import warnings

from aiohttp.test_utils import make_mocked_request

from snapllm.server.request_facts import facts_of


def test_each_request_has_facts_of_its_own_which_aiohttp_keeps_without_a_warning() -> None:
    one, other = make_mocked_request("GET", "/"), make_mocked_request("GET", "/")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts_of(one).request_id = "req_1"
        facts_of(one).logged["model"] = "demo"
    assert (facts_of(one).request_id, facts_of(one).logged) == ("req_1", {"model": "demo"})
    assert (facts_of(other).request_id, facts_of(other).logged) == ("", {})
