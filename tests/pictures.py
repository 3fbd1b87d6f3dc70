"""Pictures as the endpoints take and give them, and the request for a small one."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

PATH = "/api/v1/diffusion/generate"
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 3, "seed": 1}


def picture(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def png(array: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
