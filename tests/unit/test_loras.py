"""LoRA files and tags, and the families that a scheduler is for: what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nano_image_model import save_safetensors

from snapllm import InvalidRequestError
from snapllm.diffusion.loras import LoraFolder, lora_tag, take_loras
from snapllm.diffusion.traits import traits_of
from snapllm.diffusion.weights_file import WeightsFile

OURS = "double_blocks_0_img_attn_proj"
MODEL = {
    f"{OURS}_weight": (128, 128),
    f"{OURS}_bias": (128,),
    "input_blocks_5_1_proj_in_weight": (128, 3, 1, 1),
    "te1_text_model_encoder_layers_0_mlp_fc1_weight": (32, 16),
}


def tensors(stem: str, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {f"{stem}.{name}": np.ones(shape, np.float16) for name, shape in shapes.items()}


def loha(rank: int = 4, outputs: int = 128) -> dict[str, np.ndarray]:
    shapes = {"hada_w1_a": (outputs, 4), "hada_w1_b": (rank, 128)}
    return tensors(OURS, **shapes, hada_w2_a=(outputs, 2), hada_w2_b=(2, 128))


def lokr(outputs: int = 32) -> dict[str, np.ndarray]:
    return tensors(OURS, lokr_w1=(4, 8), lokr_w2_a=(outputs, 2), lokr_w2_b=(2, 16))


def lora(
    stem: str = f"lora_unet_{OURS}",
    *,
    inputs: int = 128,
    outputs: int = 128,
    ranks: tuple[int, int] = (4, 4),
) -> dict[str, np.ndarray]:
    """A LoRA's tensors for one module."""
    return {
        f"{stem}.lora_down.weight": np.ones((ranks[0], inputs), np.float16),
        f"{stem}.lora_up.weight": np.ones((outputs, ranks[1]), np.float16),
    }


def test_lora_tags_are_taken_out_of_the_prompt(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "ink.safetensors", lora())
    save_safetensors(tmp_path / "oil.safetensors", lora()).rename(tmp_path / "oil.gguf")
    folder = LoraFolder(tmp_path)
    prompt, loras = take_loras("a <lora:ink:0.5> cat <lora:oil>", folder)
    assert prompt == "a  cat"
    assert [(Path(lora.path).name, lora.weight) for lora in loras] == [
        ("ink.safetensors", 0.5),
        ("oil.gguf", 1.0),
    ]
    too_long = f"<lora:{'x' * 300}>"  # for a file's name
    bad_names = ("<lora:none>", "<lora:../ink>", "<lora:..>", too_long)
    bad_forms = ("<lora:>", "<lora::1>", "<lora:ink:1:2>")
    bad_weights = ("<lora:ink:much>", "<lora:ink:11>", "<lora:ink:\u0661>")
    for bad in (*bad_names, *bad_forms, *bad_weights):
        with pytest.raises(InvalidRequestError, match=r"^prompt: ") as caught:
            take_loras(bad, folder)
        assert caught.value.param == "prompt"
    with pytest.raises(InvalidRequestError, match="without a folder"):
        take_loras("<lora:ink>", LoraFolder(None))


def test_the_weights_of_a_lora_that_is_named_twice_add_up(tmp_path: Path) -> None:
    for name in ("ink", "oil"):
        save_safetensors(tmp_path / f"{name}.safetensors", lora())
    folder = LoraFolder(tmp_path)
    _, loras = take_loras("<lora:oil:0.5> <lora:ink:2> <lora:oil:1> <lora:ink:-0.5>", folder)
    assert [(Path(lora.path).stem, lora.weight) for lora in loras] == [("ink", 1.5), ("oil", 1.5)]
    with pytest.raises(InvalidRequestError, match=r"^prompt: .*'ink' are 12 together") as caught:
        take_loras("<lora:ink:6><lora:ink:6>", folder)
    assert caught.value.param == "prompt"


def test_a_tag_is_written_as_it_is_read(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "ink.safetensors", lora())
    for weight in (1.0, -10.0, 0.0, 0.1, 1e-05, 1 / 3):
        _, [found] = take_loras(lora_tag("ink", weight), LoraFolder(tmp_path))
        assert found.weight == weight
    assert lora_tag("ink", 10.0) == "<lora:ink:10>"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither a GGUF nor a safetensors file"),
        (b"no weights at all", "neither a GGUF nor a safetensors file"),
        ("truncated", "outside of the file"),
        ({"img_in.weight": np.ones((4, 4), np.float16)}, "no tensors of a LoRA"),
        (tensors(OURS, hada_w1_a=(4, 4)), "no tensors of a LoRA"),
        (lora(ranks=(4, 8)), "no rank in common"),
        (lora(inputs=64), "the model's has"),
        (lora(outputs=64), "the model's has"),
        (lora(inputs=64, outputs=256), "the model's has"),
        (lora("diffusion_model.double_blocks.0.img_attn.proj", inputs=64), "the model's has"),
        (lora("lora_te_text_model_encoder_layers_0_mlp_fc1"), "the model's has"),
        (lora("text_encoder.text_model.encoder.layers.0.mlp.fc1"), "the model's has"),
        (loha(rank=8), "no rank in common"),
        (loha(outputs=64), "the model's has"),
        (lokr(outputs=16), "the model's has"),
        (tensors(OURS, lokr_w1=(), lokr_w2=(4, 4)), "the model's has"),
        (tensors(OURS, diff=(64, 64)), "the model's has"),
        (tensors(OURS, diff_b=(64,)), "for a bias"),
    ],
)
def test_a_file_that_is_no_lora_of_the_model_is_refused(
    tmp_path: Path, data: Any, message: str
) -> None:
    path = tmp_path / "x.safetensors"
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif data == "truncated":
        path.write_bytes(save_safetensors(path, lora()).read_bytes()[:-1])
    else:
        save_safetensors(path, data)
    with pytest.raises(InvalidRequestError, match=f"^loras: the LoRA 'x'.*{message}") as caught:
        LoraFolder(tmp_path, MODEL).find("x", "loras")
    assert caught.value.param == "loras" and str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        lora(),
        lora("transformer.double_blocks.0.img_attn.proj"),
        lora("lora_unet_of_another_family", inputs=64),
        lora("lora_te_text_model_encoder_layers_0_mlp_fc1", inputs=16, outputs=32),
        lora("lora_te2_text_model_encoder_layers_0_mlp_fc1", inputs=64),
        loha(),
        lokr(),
        tensors(OURS, diff=(128, 128), diff_b=(128,)),
        lora("lora_unet_down_blocks_1_attentions_1_proj_in", inputs=3),
        {"x.diff": np.ones((4, 4), np.float16)},
    ],
)
def test_a_lora_that_fits_or_is_of_unknown_modules_is_taken(tmp_path: Path, data: Any) -> None:
    path = save_safetensors(tmp_path / "x.safetensors", data)
    assert LoraFolder(tmp_path, MODEL).find("x", "loras") == str(path)


def test_a_lora_of_diffusers_names_has_to_fit_the_block_it_means(tmp_path: Path) -> None:
    save_safetensors(
        tmp_path / "x.safetensors",
        lora("lora_unet_down_blocks_1_attentions_1_transformer_blocks_0_attn2_to_k", inputs=768),
    )
    module = "input_blocks_5_1_transformer_blocks_0_attn2_to_k_weight"
    assert LoraFolder(tmp_path, {module: (128, 768)}).find("x", "loras")
    with pytest.raises(InvalidRequestError, match="the model's has"):
        LoraFolder(tmp_path, {module: (128, 1024)}).find("x", "loras")


@pytest.mark.parametrize(
    ("parts", "takes_ays"),
    [
        ({"model": {"cond_stage_model.transformer.token_embedding.weight": (9, 768)}}, True),
        ({"model": {"cond_stage_model.model.token_embedding.weight": (9, 1024)}}, False),
        ({"model": {"conditioner.embedders.1.model.token_embedding.weight": (9, 1280)}}, True),
        ({"diffusion_model": {}, "clip_g": {"text_projection": (9, 1024)}}, True),
        ({"diffusion_model": {}, "clip_l": {"x.token_embedding.weight": (9, 1024)}}, False),
    ],
)
def test_the_scheduler_ays_is_for_families_that_it_has_a_table_for(
    parts: dict[str, dict[str, tuple[int, ...]]], takes_ays: bool
) -> None:
    unet = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
    for block, known in ((unet, takes_ays), ({"double_blocks.0.x": (1,)}, False)):
        headers = {
            part: WeightsFile(Path("x"), 0, "", shapes if "clip" in part else block | shapes)
            for part, shapes in parts.items()
        }
        assert traits_of(headers).takes_ays == known


def test_the_tensors_of_all_files_have_one_kind_of_names() -> None:
    def header(*names: str) -> WeightsFile:
        return WeightsFile(Path("x"), 0, "", dict.fromkeys(names, (1,)))

    whole = header(
        "model.diffusion_model.input_blocks.1.w",
        "cond_stage_model.transformer.a.w",
        "conditioner.embedders.0.transformer.b.w",
        "conditioner.embedders.1.transformer.c.w",
    )
    assert set(traits_of({"model": whole}).tensors) == {
        *("input_blocks_1_w", "te1_a_w", "te1_b_w", "te2_c_w")
    }
    parts = {"diffusion_model": header("double_blocks.0.w"), "taesd": header("z.w")}
    parts |= {part: header("a.w") for part in ("clip_l", "clip_g", "t5xxl", "llm")}
    assert set(traits_of(parts).tensors) == {
        *("double_blocks_0_w", "te1_a_w", "te2_a_w", "te3_a_w", "llm_a_w")
    }
