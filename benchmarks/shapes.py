"""Models to measure with, from the checkout's `tools` folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from nano_image_model import make_nano_image_model
from nano_models import Quant, Shape, make_nano_model, make_shape_model
from widened_demo import make_widened_demo

from snapllm.engine import demo_model_path

__all__ = ["SHAPES", "make_model", "make_nano_image_model", "make_nano_model"]

_WIDENED = "1b-demo"
SHAPES = (*get_args(Shape), _WIDENED)


def make_model(path: Path, shape: str, quant: Quant) -> Path:
    """Writes a model of one of `SHAPES`: random weights, or the demo model's among larger ones."""
    if shape == _WIDENED:
        return make_widened_demo(path, demo_model_path(), quant)
    return make_shape_model(path, shape, quant)  # type: ignore[arg-type]
