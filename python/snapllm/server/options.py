"""What the application is made with."""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec


class AppOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `create_app`."""

    max_body_bytes: int = 64 << 20
    aliases: tuple[tuple[str, str], ...] = ()
    """Names that clients use and the models they mean; a ``*`` in a name stands for anything."""
    api_keys: tuple[str, ...] = ()
    """One of these is required; none = no key is."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask; ``*`` = all."""
    strip_billing_header: bool = True
    """Leave Claude Code's billing line, which differs in every request, out of prompts."""

    def resolve(self, model: str) -> str:
        """The model that a name means; the first alias that fits."""
        for name, model_id in self.aliases:
            if fnmatchcase(model, name):
                return model_id
        return model
