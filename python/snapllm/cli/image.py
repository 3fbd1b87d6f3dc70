"""`snapllm image`: an image from a prompt."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from pathlib import Path
from typing import Any

from snapllm.cli.client import DEFAULT_URL, RequestError, request
from snapllm.cli.output_files import write_whole
from snapllm.cli.units import (
    expand_home,
    parse_image_part,
    parse_path,
    parse_text,
    parse_within,
)
from snapllm.diffusion.params import (
    MAX_SIDE,
    SIZE_STEP,
    CfgScale,
    ImageSeed,
    NumSteps,
    Strength,
)
from snapllm.errors import SnapLLMError

_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_MODEL_SUFFIXES = (".gguf", ".safetensors")


def _output(text: str) -> Path:
    path = parse_path(text)
    if path.suffix.lower() not in _SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected a name in {', '.join(_SUFFIXES)}, not {text!r}")
    # All of this is said before an image is made that cannot be kept.
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder")
    written = path if path.exists() else path.parent
    if not os.access(written, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write to {str(written)!r}")
    return path


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (_is_side(width) and _is_side(height)):
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT, as 512x512, each a multiple of {SIZE_STEP} and at most "
            f"{MAX_SIDE}, not {text!r}"
        )
    return int(width), int(height)


def _is_side(text: str) -> bool:
    return text.isdecimal() and int(text) in range(SIZE_STEP, MAX_SIDE + 1, SIZE_STEP)


def add_parser(commands: Any) -> None:
    """Adds the command's options."""
    parser = commands.add_parser(
        "image",
        help="make an image from a prompt",
        description="Makes an image: with --model by loading it here, else by asking a server.",
    )
    parser.add_argument("prompt", type=parse_text, help="what to show")
    parser.add_argument(
        "-o",
        "--output",
        type=_output,
        default="image.png",  # a text, which is checked as a given one is
        help="file to write: .png, .jpg or .webp (%(default)s)",
    )
    parser.add_argument(
        "--model",
        type=parse_text,
        metavar="PATH|ID",
        help="an image model's file; a server's id",
    )
    parser.add_argument(
        "--part",
        type=parse_image_part,
        action="append",
        default=[],
        metavar="PART=PATH",
        help="a further file of the model: vae, taesd, clip_l, clip_g, t5xxl, llm, upscaler",
    )
    parser.add_argument(
        "--lora-dir", type=parse_path, help="folder of LoRA files for <lora:name:weight>"
    )
    parser.add_argument("--url", default=DEFAULT_URL, help="the server to ask (%(default)s)")
    parser.add_argument("--negative", default="", metavar="PROMPT", help="what to avoid")
    parser.add_argument(
        "--size", type=_size, default=(512, 512), metavar="WxH", help="in pixels (512x512)"
    )
    parser.add_argument(
        "--steps", type=parse_within(NumSteps), default=20, help="sampling steps (%(default)s)"
    )
    parser.add_argument(
        "--cfg-scale", type=parse_within(CfgScale), default=7.0, help="guidance (%(default)s)"
    )
    parser.add_argument("--seed", type=parse_within(ImageSeed), default=-1, help="-1 = any")
    parser.add_argument("--sampler", default="", help="as euler_a or dpm++2m")
    parser.add_argument("--scheduler", default="", help="as karras or simple")
    parser.add_argument("--init", type=parse_path, metavar="PATH", help="an image to start from")
    parser.add_argument("--mask", type=parse_path, metavar="PATH", help="white is painted over")
    parser.add_argument(
        "--strength", type=parse_within(Strength), default=0.75, help="of painting over"
    )
    parser.add_argument(
        "--upscale", action="store_true", help="enlarge the image with the model's upscaler"
    )
    parser.set_defaults(handler=handle)


def handle(options: argparse.Namespace) -> int:
    """Writes the image and prints a line about it on standard error."""
    image_format = _SUFFIXES[options.output.suffix.lower()]
    width, height = options.size
    fields = {
        "negative_prompt": options.negative,
        "width": width,
        "height": height,
        "cfg_scale": options.cfg_scale,
        "seed": options.seed,
        "sampler": options.sampler,
        "scheduler": options.scheduler,
        "strength": options.strength,
        "upscale": options.upscale,
    }
    try:
        make = _make_here if _is_path(options.model) else _ask
        data, seed, seconds = make(options, fields, image_format)
        write_whole(options.output, data)
    except (SnapLLMError, RequestError, OSError) as error:
        print(f"snapllm image: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"[{options.output}: seed {seed}, {seconds:.1f} s]", file=sys.stderr)
    return 0


def _is_path(model: str | None) -> bool:
    """Whether it names a file, there or not, rather than a server's model."""
    if model is None:
        return False
    return (
        expand_home(model).is_file() or os.sep in model or model.lower().endswith(_MODEL_SUFFIXES)
    )


def _make_here(
    options: argparse.Namespace, fields: dict[str, Any], image_format: Any
) -> tuple[bytes, int, float]:
    from snapllm.diffusion.pictures import encode
    from snapllm.engine import Engine

    with Engine() as engine:
        model = engine.load_diffusion(
            expand_home(options.model), lora_dir=options.lora_dir, **dict(options.part)
        )
        result = model.generate_images(
            options.prompt,
            init_image=options.init,
            mask=options.mask,
            num_steps=options.steps,
            progress=True,
            **fields,
        )
    [picture], [seed] = result.pictures, result.seeds
    info = {"parameters": result.parameters[0]}
    return encode(picture, image_format, info=info), seed, result.seconds


def _ask(
    options: argparse.Namespace, fields: dict[str, Any], image_format: str
) -> tuple[bytes, int, float]:
    if options.part or options.lora_dir:
        raise RequestError("--part and --lora-dir are for a --model that is a file here")
    body = {
        "prompt": options.prompt,
        "model": options.model,
        "steps": options.steps,
        "output_format": image_format,
        **fields,
    }
    for name, path in (("init_image", options.init), ("mask", options.mask)):
        if path is not None:
            body[name] = base64.b64encode(path.read_bytes()).decode()
    answer = request(options.url, "/api/v1/diffusion/generate", body)
    data = base64.b64decode(answer["image"])
    return data, answer["seed"], answer["generation_time_s"]
