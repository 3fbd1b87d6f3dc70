"""Image requests: what is refused before it reaches a model, and what it is told."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from snapllm import InvalidRequestError
from snapllm.diffusion.parameters import parameters_text
from snapllm.diffusion.params import (
    MAX_PROMPT_CHARS,
    ImageRequest,
    Picture,
    SeveralImagesOptions,
    image_request,
)
from snapllm.diffusion.pictures import encode, read_picture
from snapllm.diffusion.prompt_weights import heaviest


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * (MAX_PROMPT_CHARS + 1)}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"prompt": "a (cat:.)"}, "prompt"),
        ({"prompt": f"a (cat:{'9' * 60})"}, "prompt"),
        ({"prompt": f"a (cat:-0.{'0' * 44}1)"}, "prompt"),
        ({"negative_prompt": f"(dog:0.{'0' * 400}1)"}, "negative_prompt"),
        ({"negative_prompt": "(dog:..)"}, "negative_prompt"),
        ({"prompt": "(" * 1000 + "a" + ")" * 1000}, "prompt"),
        ({"prompt": "(" * 1000 + "a"}, "prompt"),
        ({"prompt": "((a:500):-3)"}, "prompt"),
        # What is infinite once stays so, whatever is around it.
        ({"prompt": "(" * 14 + "a" + ":1000)" * 13 + ":0)"}, "prompt"),
        ({"negative_prompt": "(([a:900]:900):900)"}, "negative_prompt"),
        ({"num_steps": 1, "scheduler": "gits"}, "num_steps"),
        ({"num_steps": 1, "scheduler": "karras"}, "num_steps"),
        ({"num_steps": 1, "scheduler": "exponential"}, "num_steps"),
        ({"seed": 2**53 - 1, "num_images": 2}, "seed"),
        ({"width": 0}, "width"),
        ({"width": -64}, "width"),
        ({"height": 100}, "height"),
        ({"height": 4096}, "height"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": -1}, "num_steps"),
        ({"num_steps": 151}, "num_steps"),
        ({"cfg_scale": -1.0}, "cfg_scale"),
        ({"cfg_scale": math.nan}, "cfg_scale"),
        ({"cfg_scale": math.inf}, "cfg_scale"),
        ({"strength": 1.5}, "strength"),
        ({"seed": -2}, "seed"),
        ({"seed": 2**53}, "seed"),
        ({"sampler": "best"}, "sampler"),
        ({"scheduler": "best"}, "scheduler"),
        ({"num_images": 0}, "num_images"),
        ({"num_images": 17}, "num_images"),
        ({"clip_skip": 99}, "clip_skip"),
        ({"mask": Picture(512, 512, 1, bytes(512 * 512))}, "mask"),
        ({"init_image": Picture(64, 64, 3, bytes(64 * 64 * 3))}, "init_image"),
        ({"init_image": Picture(512, 512, 4, bytes(512 * 512 * 4))}, "init_image"),
        ({"init_image": Picture(512, 512, 3, b"short")}, "init_image"),
    ],
)
def test_what_would_end_the_process_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        image_request(**({"prompt": "a cat"} | fields))
    assert caught.value.param == param
    assert str(caught.value).startswith(f"{param}: ")


@pytest.mark.parametrize(
    "prompt",
    [
        *("(cat:1.2)", "[dog]", "((a:0.5):-1)", "a:b)", "(a:0.00)", "100:1"),
        "((a:900):1.1), (b:1000)",
        "[" * 1000 + "a" + "]" * 1000,
        "(a) " * 1000,
        "\\(" * 900 + "a" + "\\)" * 900,
        ")" * 100 + "(((a:2)))",
        "(a:\u0661\u0660\u0660\u0660\u0660)",  # no digits to the parser
    ],
)
def test_weights_that_are_numbers_are_fine(prompt: str) -> None:
    assert image_request(prompt=prompt).prompt == prompt


def test_a_seed_is_chosen_and_a_given_one_kept() -> None:
    seeds = {image_request(prompt="x").seed for _ in range(20)}
    assert len(seeds) == 20 and min(seeds) >= 0
    assert image_request(prompt="x", seed=7).seed == 7


def test_a_size_that_does_not_fit_says_which_would() -> None:
    with pytest.raises(InvalidRequestError, match="the nearest one is 512"):
        image_request(prompt="x", width=500)


def test_schedules_of_few_steps_that_are_none_of_one_are_fine() -> None:
    for scheduler in ("gits", "karras", "exponential"):
        assert image_request(prompt="x", num_steps=2, scheduler=scheduler).num_steps == 2
    assert image_request(prompt="x", num_steps=1, scheduler="simple").num_steps == 1


def test_the_last_seed_may_be_the_largest() -> None:
    seed = 2**53 - 3
    assert image_request(prompt="x", seed=seed, num_images=3).seed == seed


def test_the_heaviest_word_counts_as_the_parser_multiplies() -> None:
    for prompt, weight in {
        "a": 1,
        "(a)": 1.1,
        "((a)": 1.1**2,
        "((a:2) b:3)": 6,
        "(a:2) (b:3)": 3,
        "([a)]:2": 1.1,
        "(a:-5)": 5,
        "()" * 9: 1,
    }.items():
        assert heaviest(prompt) == pytest.approx(weight), prompt


def test_a_picture_is_brought_to_size_and_mode() -> None:
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[:, 50:] = 255
    picture = read_picture(pixels, "init_image", 128, 128)
    assert (picture.width, picture.height, picture.num_channels) == (128, 128, 3)
    mask = read_picture(pixels, "mask", 64, 64, "L")
    assert mask.num_channels == 1 and set(mask.samples) == {0, 255}
    with pytest.raises(InvalidRequestError, match=r"^init_image: "):
        read_picture(b"no image", "init_image", 64, 64)
    with pytest.raises(InvalidRequestError, match=r"^init_image: a data URL is no path"):
        read_picture("data:image/png;base64," + "A" * 1000, "init_image", 64, 64)


def test_a_mask_is_its_colours_and_an_image_what_is_seen() -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, 32:] = 255
    assert set(read_picture(pixels, "mask", 64, 64, "L").samples) == {0, 255}
    assert set(read_picture(pixels, "init_image", 64, 64).samples) == {255}


def test_files_hold_the_pixels_and_what_made_them() -> None:
    samples = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    picture = Picture(64, 64, 3, samples.tobytes())
    request = image_request(prompt="a cat", negative_prompt="dog", seed=5, num_steps=3)
    info = {"parameters": parameters_text(request, 5, "m")}
    image = Image.open(io.BytesIO(encode(picture, "png", info=info)))
    assert np.array_equal(np.asarray(image), samples)
    text = image.info["parameters"]
    assert text.startswith("a cat\nNegative prompt: dog\nSteps: 3, ")
    assert "Seed: 5, Size: 512x512, Model: m" in text
    assert "Distilled CFG Scale: 3.5" in text and "Clip skip" not in text
    lossless = Image.open(io.BytesIO(encode(picture, "webp", 100)))
    assert np.array_equal(np.asarray(lossless.convert("RGB")), samples)
    assert Image.open(io.BytesIO(encode(picture, "jpeg"))).size == (64, 64)


def test_the_parameters_of_an_image_are_all_there() -> None:
    picture, mask = Picture(64, 64, 3, bytes(64 * 64 * 3)), Picture(64, 64, 1, bytes(64 * 64))
    request = image_request(
        prompt="a cat",
        text="a cat <lora:ink:0.5>",
        width=64,
        height=64,
        guidance=2.5,
        clip_skip=2,
        strength=0.5,
        init_image=picture,
        mask=mask,
        upscale=True,
    )
    prompt, _, line = parameters_text(request, 5, "sd:1, the first", 4).partition("\n")
    assert prompt == "a cat <lora:ink:0.5>"
    parts = dict(part.split(": ", 1) for part in re.split(r", (?=[A-Z])", line))
    assert parts.pop("Init image hash") != parts.pop("Mask hash")
    assert parts == {
        "Steps": "20",
        "Sampler": "default",
        "Schedule type": "default",
        "CFG scale": "7.0",
        "Distilled CFG Scale": "2.5",
        "Seed": "5",
        "Size": "64x64",
        "Model": '"sd:1, the first"',
        "Clip skip": "2",
        "Denoising strength": "0.5",
        "Postprocess upscale by": "4",
    }


def test_the_plain_fields_of_a_request_are_keyword_arguments() -> None:
    # Which have parameters of their own, or are made of those.
    others = {"prompt", "text", "init_image", "mask", "loras"}
    assert {*SeveralImagesOptions.__annotations__} == {*ImageRequest.__struct_fields__} - others
