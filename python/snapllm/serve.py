"""`python -m snapllm.serve`: the same as `snapllm serve`."""

from __future__ import annotations

import sys

from snapllm.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
