"""Numbers as the C++ core has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, SupportsIndex, TypeAlias

from msgspec import Meta

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
FLOAT32_MAX = (2 - 2**-23) * 2.0**127

TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Tokens: TypeAlias = Iterable[SupportsIndex]
"""As callers give them: integers of any library, as a NumPy array has."""
