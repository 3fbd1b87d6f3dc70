"""What the application is made with."""

from __future__ import annotations

from collections.abc import Container, Iterator
from fnmatch import fnmatchcase

import msgspec

from snapllm.params import DEFAULT_MAX_TOKENS, LoadOptions


class AppOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `create_app`."""

    max_body_bytes: int = 64 << 20
    aliases: tuple[tuple[str, str], ...] = ()
    """Names that clients use and the models they mean, see `resolve`; a ``*`` in a name stands
    for anything."""
    api_keys: tuple[str, ...] = ()
    """One of these is required; none = no key is."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask; ``*`` = all."""
    default_max_tokens: int = DEFAULT_MAX_TOKENS
    """Of a chat completion whose request does not say how long it may get."""
    strip_billing_header: bool = True
    """Leave Claude Code's billing line, which differs in every request, out of prompts."""
    load_defaults: LoadOptions = msgspec.field(default_factory=lambda: LoadOptions())
    """Of text models that are loaded over HTTP."""

    def alias_of(self, name: str) -> str:
        """What else a name is the alias of, whichever models there are; "" = nothing."""
        model_id = dict(reversed(self.aliases)).get(name, "")
        return "" if model_id == name else model_id

    def resolve(self, name: str, model_ids: Container[str] = ()) -> str:
        """The model, or ``model@context``, that a client's name means.

        An alias of just that name goes first, then a model of that id, then the first alias
        whose ``*`` fits. Where none means the whole name, the part before its @ is looked for
        in the same way, and what it means is put in its place.

        Args:
            name: The name; empty = the active model.
            model_ids: Models that there are.
        """
        exact = dict(reversed(self.aliases))
        for head, rest in _splits(name):
            if head in exact:
                return exact[head] + rest
            if head in model_ids:
                return name
        # The first @: the name of a context may hold more.
        head, at, rest = name.partition("@")
        for pattern, model_id in self.aliases:
            if "@" in pattern:
                if fnmatchcase(name, pattern):
                    return model_id
            elif (head or not at) and fnmatchcase(head, pattern):
                return model_id + at + rest
        return name


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """The name whole, then cut in two before each @, the last one first."""
    end = len(name)
    while end > 0:
        yield name[:end], name[end:]
        end = name.rfind("@", 0, end)
