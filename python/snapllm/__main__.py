"""`python -m snapllm`: the same as `snapllm`."""

from __future__ import annotations

import sys

from snapllm.cli import main

sys.exit(main())
