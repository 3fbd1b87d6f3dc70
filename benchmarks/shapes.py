"""Models with random weights to measure with, from the checkout's `tools` folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from nano_image_model import make_nano_image_model
from nano_models import Shape, make_nano_model, make_shape_model

__all__ = ["Shape", "make_nano_image_model", "make_nano_model", "make_shape_model"]
