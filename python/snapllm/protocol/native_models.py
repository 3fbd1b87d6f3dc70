"""The native API: requests about models of all kinds.

The answers are in `native_model_answers`, the lists in `native_listing`. The specification fixes
the fields of these endpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta

from snapllm.diffusion.options import LoadImageOptions
from snapllm.errors import InvalidRequestError, SnapLLMError
from snapllm.params import MAX_KEEP_ALIVE_S, FlashAttention, KvType, LoadOptions, ModelName
from snapllm.protocol.decoding import decode_body

_encode = msgspec.json.encode

_Tokens: TypeAlias = Annotated[
    int,
    # Else the core refuses it.
    Meta(ge=0, le=1 << 24, extra_json_schema={"not": {"minimum": 1, "maximum": 15}}),
]
_BatchTokens: TypeAlias = Annotated[int, Meta(ge=64, le=65_536)]


class LoadRequest(msgspec.Struct, kw_only=True):
    """The body of POST /api/v1/models/load."""

    model_id: Annotated[str, Meta(min_length=1, max_length=256)]
    file_path: Annotated[str, Meta(min_length=1)]
    model_type: Literal["auto", "llm", "vision", "diffusion"] = "auto"
    gpu_layers: Annotated[int, Meta(ge=-1, le=100_000)] | None = None
    context_size: _Tokens | None = None
    mmproj_path: str | None = None
    num_threads: Annotated[int, Meta(ge=0, le=512)] = 0
    draft_tokens: Annotated[int, Meta(ge=0, le=15)] | None = None
    pinned: bool = False
    keep_alive_s: Annotated[float, Meta(ge=0, le=MAX_KEEP_ALIVE_S)] | None = None
    flash_attention: bool | FlashAttention | None = None
    # Of text models:
    kv_type: KvType | None = None
    kv_cells: _Tokens | None = None
    max_sequences: Annotated[int, Meta(ge=1, le=64)] | None = None
    batch_tokens: _BatchTokens | None = None
    ubatch_tokens: _BatchTokens | None = None
    chat_template: str | None = None
    # Of image models:
    vae_path: str | None = None
    taesd_path: str | None = None
    clip_l_path: str | None = None
    clip_g_path: str | None = None
    t5xxl_path: str | None = None
    llm_path: str | None = None
    upscaler_path: str | None = None
    lora_dir: str | None = None

    def field_at_fault(self, error: SnapLLMError) -> str:
        """The field that a refusal of the engine's is about; it calls some by other names.

        One that names none is about a file: the longest path that it speaks of is its. Of several
        fields with that path it is the first, since that one is read first.
        """
        if error.param is not None:
            field = "file_path" if error.param == "path" else f"{error.param}_path"
            return field if hasattr(self, field) else error.param
        fields = [name for name in self.__struct_fields__ if name.endswith(("_path", "_dir"))]
        given = [(path, name) for name in fields if (path := getattr(self, name))]
        # Some of what reads files shows where they are in full.
        given += [(str(Path(path).absolute()), name) for path, name in given]
        told = [(len(path), name) for path, name in given if path in error.message]
        return max(told, key=lambda each: each[0], default=(0, "file_path"))[1]

    def image_parts(self) -> LoadImageOptions:
        """The files of an image model beside its first, by part."""
        paths = {
            "vae": self.vae_path,
            "taesd": self.taesd_path,
            "clip_l": self.clip_l_path,
            "clip_g": self.clip_g_path,
            "t5xxl": self.t5xxl_path,
            "llm": self.llm_path,
            "upscaler": self.upscaler_path,
        }
        return cast(LoadImageOptions, {part: path for part, path in paths.items() if path})

    def text_options(self) -> LoadOptions:
        """Those given that only a text model has."""
        values = {
            "kv_type": self.kv_type,
            "kv_cells": self.kv_cells,
            "max_sequences": self.max_sequences,
            "batch_tokens": self.batch_tokens,
            "ubatch_tokens": self.ubatch_tokens,
            "chat_template": self.chat_template,
        }
        given = {name: value for name, value in values.items() if value is not None}
        return cast(LoadOptions, given)


class PinRequest(msgspec.Struct):
    """The body of POST /api/v1/models/pin."""

    model_id: ModelName
    pinned: bool = True


class ModelIdRequest(msgspec.Struct):
    """The body of POST /api/v1/models/switch and /unload."""

    model_id: ModelName


_load_decoder = msgspec.json.Decoder(LoadRequest)
_pin_decoder = msgspec.json.Decoder(PinRequest)
_model_id_decoder = msgspec.json.Decoder(ModelIdRequest)


def parse_load(body: bytes) -> LoadRequest:
    """Reads a load request; refuses options that do not fit its type."""
    request = decode_body(body, _load_decoder)
    parts = request.image_parts()
    if request.mmproj_path and (parts or request.model_type == "diffusion"):
        raise InvalidRequestError(
            "mmproj_path: an image model has no projector", param="mmproj_path"
        )
    if parts and request.model_type in ("llm", "vision"):
        param = f"{min(parts)}_path"
        raise InvalidRequestError(f"{param}: only an image model has it", param=param)
    if request.model_type == "vision" and not request.mmproj_path:
        raise InvalidRequestError(
            "mmproj_path: a vision model needs its projector file", param="mmproj_path"
        )
    if request.model_type == "llm" and request.mmproj_path:
        raise InvalidRequestError(
            "mmproj_path: a model of type llm has no projector; use vision or auto",
            param="mmproj_path",
        )
    return request


def load_options(request: LoadRequest, defaults: LoadOptions) -> LoadOptions:
    """The keyword arguments of `Engine.load` that a load request asks for.

    Args:
        request: The request.
        defaults: Those of what it does not say.

    Raises:
        InvalidRequestError: LoRAs are given, which only image models take.
    """
    if request.lora_dir and Path(request.file_path).exists():
        raise InvalidRequestError("lora_dir: only an image model has it", param="lora_dir")
    options = LoadOptions(**defaults)
    # What is given goes with what is given: a default that might not go with it is none.
    if request.kv_cells is not None:
        options.pop("context_size", None)
    if request.kv_type is not None or request.flash_attention is not None:
        options.pop("kv_type", None)
        options.pop("flash_attention", None)
    options["num_threads"] = request.num_threads
    options["pinned"] = request.pinned
    options["mmproj_path"] = request.mmproj_path or ""
    options.update(request.text_options())
    if request.gpu_layers is not None:
        options["gpu_layers"] = request.gpu_layers
    if request.context_size is not None:
        options["context_size"] = request.context_size
    if request.draft_tokens is not None:
        options["draft_tokens"] = request.draft_tokens
    if isinstance(request.flash_attention, str):
        options["flash_attention"] = request.flash_attention
    elif request.flash_attention is not None:
        options["flash_attention"] = "on" if request.flash_attention else "off"
    if request.keep_alive_s is not None:
        options["keep_alive_s"] = request.keep_alive_s
    return options


def image_load_options(request: LoadRequest) -> LoadImageOptions:
    """The keyword arguments of `Engine.load_diffusion` that a load request asks for.

    Raises:
        InvalidRequestError: An option is one that only text models have.
    """
    if refused := request.text_options():
        param = min(refused)
        raise InvalidRequestError(f"{param}: an image model has no such option", param=param)
    options = request.image_parts()
    options["num_threads"] = request.num_threads
    options["flash_attention"] = request.flash_attention in (True, "on")
    options["lora_dir"] = request.lora_dir
    options["pinned"] = request.pinned
    if request.keep_alive_s is not None:
        options["keep_alive_s"] = request.keep_alive_s
    return options


def parse_model_id(body: bytes) -> str:
    """Reads the model id of a switch or unload request."""
    return decode_body(body, _model_id_decoder).model_id


def parse_pin(body: bytes) -> PinRequest:
    """Reads a pin request."""
    return decode_body(body, _pin_decoder)
