"""Pictures equal those of stable-diffusion.cpp's own command-line tool, pixel by pixel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upstream import upstream_binary

import snapllm


@pytest.mark.parametrize("seed", [1, 7])
def test_the_pixels_are_upstreams(image_files: dict[str, Path], tmp_path: Path, seed: int) -> None:
    tool = upstream_binary("sd-cli")
    output = tmp_path / "upstream.png"
    arguments = {
        "--diffusion-model": image_files["diffusion_model"],
        "--llm": image_files["llm"],
        "--taesd": image_files["taesd"],
        "-p": "a cat on a mat",
        "-n": "blurry",
        "-W": 128,
        "-H": 64,
        "--steps": 4,
        "--cfg-scale": 5.0,
        "-s": seed,
        "-t": 1,
        "-o": output,
    }
    command = [str(tool), *(str(word) for pair in arguments.items() for word in pair)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with snapllm.Engine(num_threads=1) as engine:
        model = engine.load_diffusion(
            image_files["diffusion_model"], llm=image_files["llm"], taesd=image_files["taesd"]
        )
        image = model.generate_image(
            "a cat on a mat",
            negative_prompt="blurry",
            width=128,
            height=64,
            num_steps=4,
            cfg_scale=5.0,
            seed=seed,
        )
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(output).convert("RGB")))
