"""Writes GGUF model files with random weights and a byte-level ChatML vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, product
from math import prod
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quant_shape_to_byte_shape, quantize

CHATML_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\nFor each call return <tool_call>{"name": ..., "arguments": ...}</tool_call>' }}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
{{- '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- (call.function.arguments if call.function.arguments is string
     else call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""

_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
_MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>")


def _byte_characters() -> list[str]:
    """The printable stand-ins of the 256 bytes that byte-level BPE uses (GPT-2's)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(0xAE, 0x100)]
    characters = {byte: chr(byte) for byte in kept}
    others = (byte for byte in range(256) if byte not in characters)
    characters |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


_MERGES = ("t h", "th e", "i n", "a n", "Ġ the", "Ġ a")

# Where in a block the 16-bit scale of its numbers lies, and of numbers without sign where that of
# the minima, and their mean. Format: ggml-common.h.
_READ_ONLY = {
    Kind.Q2_K: (80, (82, 1.5)),
    Kind.Q3_K: (108, None),
    Kind.Q4_K: (0, (2, 7.5)),
    Kind.Q5_K: (0, (2, 15.5)),
    Kind.Q6_K: (208, None),
    Kind.IQ4_XS: (0, None),
    Kind.IQ4_NL: (0, None),
}

Place = tuple[np.ndarray, np.ndarray]
"""Rows and columns of a matrix."""

_BLOCK_SIZE = 32
_MAX_DRAWN = 1 << 18
_SAMPLE = 256


def _vocabulary(size: int) -> tuple[list[str], list[gguf.TokenType]]:
    """The tokens and their types; made-up words fill them up to the size."""
    tokens = [*_byte_characters(), *(merge.replace(" ", "") for merge in _MERGES)]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    tokens += [*_CONTROL, *_MARKUP]
    types += [gguf.TokenType.CONTROL] * len(_CONTROL)
    types += [gguf.TokenType.USER_DEFINED] * len(_MARKUP)
    words = product("abcdefghijklmnopqrstuvwxyz", repeat=4)
    tokens += ["Ġ" + "".join(word) for word in islice(words, max(0, size - len(tokens)))]
    types += [gguf.TokenType.NORMAL] * (len(tokens) - len(types))
    return tokens, types


def random_weights(random: np.random.Generator, shape: tuple[int, ...], kind: Kind) -> np.ndarray:
    """Weights that about keep their input's size; big tensors repeat some thousand blocks."""
    deviation = 1.5 / np.sqrt(shape[-1])
    if kind in _READ_ONLY:
        return _random_bytes(random, shape, kind, deviation)
    if prod(shape) <= _MAX_DRAWN:
        return quantize(random.normal(0, deviation, shape), kind)
    blocks = quantize(random.normal(0, deviation, (_MAX_DRAWN // _BLOCK_SIZE, _BLOCK_SIZE)), kind)
    picked = random.integers(0, len(blocks), prod(shape) // _BLOCK_SIZE, dtype=np.uint32)
    return blocks[picked].reshape(*shape[:-1], -1)


def _random_bytes(
    random: np.random.Generator, shape: tuple[int, ...], kind: Kind, deviation: float
) -> np.ndarray:
    """Weights of a kind that gguf can only read: any bytes are some, but for the scales."""
    scale_at, minimum = _READ_ONLY[kind]
    block_size, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (prod(shape) // block_size, num_bytes), dtype=np.uint8)

    def put_scale(scale: float) -> None:
        blocks[:, scale_at : scale_at + 2] = np.array([scale], np.float16).view(np.uint8)
        if minimum is not None:
            at, mean = minimum
            blocks[:, at : at + 2] = np.array([mean * scale], np.float16).view(np.uint8)

    put_scale(1)
    put_scale(deviation / float(dequantize(blocks[:_SAMPLE], kind).std()))
    return blocks.reshape(*shape[:-1], -1)


class ModelFile:
    """A model file in the making; `write` makes its tensors one at a time.

    Args:
        path: The file to write.
        architecture: The model's architecture, as GGUF names it.
        kind: The type of the matrices' weights.
        seed: The same seed and tensors give the same file.
        vocab_size: The least number of tokens.
    """

    def __init__(
        self,
        path: Path,
        architecture: str,
        *,
        kind: Kind,
        seed: int,
        vocab_size: int = 0,
        fills_in: bool = False,
    ) -> None:
        self.metadata = gguf.GGUFWriter(path, architecture)
        self._tokens, self._types = _vocabulary(vocab_size)
        if fills_in:
            self._tokens += _FIM
            self._types += [gguf.TokenType.CONTROL] * len(_FIM)
        self._kind = kind
        self._random = np.random.default_rng(seed)
        self._tensors: list[Callable[[], np.ndarray]] = []

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    def add_matrix(self, name: str, *shape: int, kind: Kind | None = None) -> None:
        """Adds random weights, outputs before inputs in the shape."""
        self.add_matrix_named(f"{name}.weight", *shape, kind=kind)

    def add_matrix_named(self, name: str, *shape: int, kind: Kind | None = None) -> None:
        """`add_matrix` under a name that does not end in the usual way."""
        kind = self._kind if kind is None else kind
        if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = Kind.Q8_0  # rows that are no whole blocks: as files of K-quants have them
        self._add(name, shape, kind, lambda: random_weights(self._random, shape, kind))

    def add_matrix_within(
        self, name: str, shape: tuple[int, int], values: np.ndarray, at: Place, *, is_random: bool
    ) -> None:
        """Adds a matrix that has the given values at these rows and columns.

        Args:
            name: without its end.
            shape: outputs and inputs.
            values: of as many rows and columns as are named.
            at: the rows, and the columns, which come in whole blocks.
            is_random: whether its other weights are random, else they are 0.
        """
        kind = self._kind
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]

        def make() -> np.ndarray:
            if is_random:
                weights = random_weights(self._random, shape, kind)
            else:
                weights = quantize(np.zeros((1, shape[1]), np.float32), kind).repeat(shape[0], 0)
            rows, columns = at
            blocks = weights.view(np.uint8).reshape(shape[0], -1, block_bytes)
            placed = quantize(np.ascontiguousarray(values, np.float32), kind)
            blocks[np.ix_(rows, columns[::block_size] // block_size)] = placed.view(
                np.uint8
            ).reshape(len(values), -1, block_bytes)
            return weights

        self._add(f"{name}.weight", shape, kind, make)

    def add_values(self, name: str, values: np.ndarray) -> None:
        """Adds the given values, as 32-bit floats; the name is the full name."""
        self._add(name, values.shape, Kind.F32, lambda: values.astype(np.float32))

    def add_norm(self, name: str, *shape: int, weight: float = 1) -> None:
        """Adds a norm's weights, all the same."""
        self.add_values(f"{name}.weight", np.full(shape, weight))

    def add_tokenizer(self, template: str | None) -> None:
        """Adds the vocabulary, and the chat template if there is one."""
        self.metadata.add_tokenizer_model("gpt2")
        self.metadata.add_tokenizer_pre("qwen2")
        self.metadata.add_token_list(self._tokens)
        self.metadata.add_token_types(self._types)
        self.metadata.add_token_merges(_MERGES)
        self.metadata.add_eos_token_id(self._tokens.index("<|im_end|>"))
        self.metadata.add_bos_token_id(self._tokens.index("<|endoftext|>"))
        self.metadata.add_add_bos_token(False)
        if template is not None:
            self.metadata.add_chat_template(template)
        self.metadata.add_vocab_size(self.vocab_size)

    def write(self) -> None:
        """Writes the file, holding one tensor in memory at a time."""
        self.metadata.write_header_to_file()
        self.metadata.write_kv_data_to_file()
        self.metadata.write_ti_data_to_file()
        for make in self._tensors:
            self.metadata.write_tensor_data(make())
        self.metadata.close()

    def _add(
        self, name: str, shape: tuple[int, ...], kind: Kind, make: Callable[[], np.ndarray]
    ) -> None:
        size = prod(quant_shape_to_byte_shape(shape, kind))
        self.metadata.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
        self._tensors.append(make)
