"""What a client's name for a model means."""

from __future__ import annotations

import pytest

from snapllm.server.options import AppOptions

OPTIONS = AppOptions(
    aliases=(
        ("claude-*", "demo"),
        ("claude-large", "large"),
        ("gpt", "demo"),
        ("gpt", "large"),
        ("mail@home", "small"),
        ("doc", "demo@handbook"),
        ("old-*@handbook", "demo@archive"),
    )
)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("gpt", "demo"),
        ("gpt@handbook", "demo@handbook"),
        ("gpt@one@two", "demo@one@two"),
        ("claude-x", "demo"),
        ("claude-x@handbook", "demo@handbook"),
        ("claude-x@one@two", "demo@one@two"),
        ("claude-large", "large"),
        ("claude-large@handbook", "large@handbook"),
        ("mail@home", "small"),
        ("mail@home@handbook", "small@handbook"),
        ("mail", "mail"),
        ("doc", "demo@handbook"),
        ("old-x@handbook", "demo@archive"),
        ("old-x@other", "old-x@other"),
        ("demo@handbook", "demo@handbook"),
        ("@handbook", "@handbook"),
        ("", ""),
    ],
)
def test_an_alias_stands_for_its_model_with_and_without_a_context(name: str, meaning: str) -> None:
    assert OPTIONS.resolve(name) == meaning


def test_a_star_hides_no_model() -> None:
    options = AppOptions(aliases=(("*", "demo"),))
    models = ("large", "mail@home")
    for name in (*models, "large@handbook", "mail@home@handbook", "@handbook"):
        assert options.resolve(name, models) == name
    assert options.resolve("", models) == options.resolve("other", models) == "demo"
    assert options.resolve("mail@handbook", models) == "demo@handbook"
