"""Widens the demo model to the shape of a large one: its answers, at the large one's cost.

Of random weights, many tokens are about as likely as each other, and rounding decides between
them. A model that was trained is sure of most. To compare answers at a real size, the demo
model's weights are put into a corner of larger matrices: function-preserving widening and
deepening (Chen et al. 2016, Net2Net, https://arxiv.org/abs/1511.05641), here with zeros where an
added part would write to the residual stream.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from model_files import ModelFile
from nano_models import SHAPES, ModelShape, Quant


def make_widened_demo(
    path: Path,
    demo: Path,
    quant: Quant = "q4_0",
    *,
    shape: ModelShape = SHAPES["1b"],
    vocab_size: int = 128256,
) -> Path:
    """Writes a model as large as Llama 3.2 1B (0.7 GB at q4_0) that answers as the demo model.

    Args:
        path: The file to write.
        demo: The demo model's file.
        quant: The type of the matrices' weights, of those that gguf can write. The answers are
            those of the demo model's weights at this precision.
        shape: The sizes; heads as large as the demo model's, and at least as many.
        vocab_size: How many tokens; the added ones are never answered.

    Returns:
        The path.

    Raises:
        ValueError: The heads have another size.
    """
    kind = gguf.GGMLQuantizationType[quant.upper()]
    reader = gguf.GGUFReader(demo)
    model = ModelFile(path, _text(reader, "general.architecture"), kind=kind, seed=1)
    widening = _Widening(reader, model, shape, vocab_size)
    widening.add_metadata(f"widened demo {quant}", gguf.LlamaFileType[f"MOSTLY_{quant.upper()}"])
    widening.add_tensors()
    model.write()
    return path


def _text(reader: gguf.GGUFReader, key: str) -> str:
    return str(reader.fields[key].contents())


class _Widening:
    def __init__(
        self, demo: gguf.GGUFReader, model: ModelFile, shape: ModelShape, vocab_size: int
    ) -> None:
        self._demo, self._model, self._shape = demo, model, shape
        self._vocab_size = vocab_size
        self._tensors = {tensor.name: np.asarray(tensor.data) for tensor in demo.tensors}
        self._embeddings = self._values("token_embd")
        self._width = np.arange(self._embeddings.shape[1])
        self._num_layers = int(self._number("block_count"))
        size, group = shape.head_size, shape.heads // shape.kv_heads
        if self._number("attention.key_length") != size:
            raise ValueError("the heads must be as large as the demo model's")
        # Each of its heads has keys of its own, and is the first one of a group here.
        starts = np.arange(int(self._number("attention.head_count_kv"))) * size
        self._keys = (starts[:, None] + np.arange(size)).ravel()
        self._queries = (starts[:, None] * group + np.arange(size)).ravel()

    def add_metadata(self, name: str, file_type: gguf.LlamaFileType) -> None:
        """Adds the demo model's, but for the sizes."""
        metadata, shape = self._model.metadata, self._shape
        metadata.add_name(name)
        metadata.add_file_type(file_type)
        metadata.add_embedding_length(shape.width)
        metadata.add_block_count(shape.layers)
        metadata.add_feed_forward_length(shape.ffn)
        metadata.add_head_count(shape.heads)
        metadata.add_head_count_kv(shape.kv_heads)
        metadata.add_vocab_size(self._vocab_size)
        # The mean of the squares is over more numbers, of which the added ones are 0.
        epsilon = self._number("attention.layer_norm_rms_epsilon") * self._narrow
        metadata.add_layer_norm_rms_eps(epsilon)
        tokens = self._demo.fields[gguf.Keys.Tokenizer.LIST].contents()
        types = self._demo.fields[gguf.Keys.Tokenizer.TOKEN_TYPE].contents()
        num_added = self._vocab_size - len(tokens)
        metadata.add_token_list(tokens + [f"<|unused_{i}|>" for i in range(num_added)])
        metadata.add_token_types(types + [int(gguf.TokenType.UNUSED)] * num_added)
        done = {key for part in metadata.kv_data for key in part}
        for key, field in self._demo.fields.items():
            if key.startswith("GGUF.") or key in done:
                continue
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            item_type = field.types[-1] if is_array else None
            metadata.add_key_value(key, field.contents(), field.types[0], item_type)

    def add_tensors(self) -> None:
        """Adds the layers of the demo model, and others that add nothing to what comes in."""
        shape = self._shape
        tokens = np.arange(len(self._embeddings))
        self._model.add_matrix_within(
            "token_embd",
            (self._vocab_size, shape.width),
            self._embeddings,
            (tokens, self._width),
            is_random=False,
        )
        self._add_norm("output_norm", "output_norm")
        for i in range(shape.layers):
            self._add_layer(f"blk.{i}", f"blk.{i % self._num_layers}", i < self._num_layers)

    def _add_layer(self, name: str, source: str, is_heard: bool) -> None:
        shape = self._shape
        all_queries, all_keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        neurons = np.arange(len(self._values(f"{source}.ffn_gate")))
        for norm in ("attn_norm", "ffn_norm"):
            self._add_norm(f"{name}.{norm}", f"{source}.{norm}")
        for norm in ("attn_q_norm", "attn_k_norm"):
            self._model.add_values(f"{name}.{norm}.weight", self._values(f"{source}.{norm}"))
        for part, rows, num_rows in (
            ("attn_q", self._queries, all_queries),
            ("attn_k", self._keys, all_keys),
            ("attn_v", self._keys, all_keys),
            ("ffn_gate", neurons, shape.ffn),
            ("ffn_up", neurons, shape.ffn),
        ):
            self._model.add_matrix_within(
                f"{name}.{part}",
                (num_rows, shape.width),
                self._values(f"{source}.{part}"),
                (rows, self._width),
                is_random=True,
            )
        for part, columns, num_columns in (
            ("attn_output", self._queries, all_queries),
            ("ffn_down", neurons, shape.ffn),
        ):
            self._model.add_matrix_within(
                f"{name}.{part}",
                (shape.width, num_columns),
                self._values(f"{source}.{part}") * is_heard,
                (self._width, columns),
                is_random=False,
            )

    def _add_norm(self, name: str, source: str) -> None:
        weights = np.ones(self._shape.width, np.float32)
        weights[: len(self._width)] = self._values(source) * np.sqrt(self._narrow)
        self._model.add_values(f"{name}.weight", weights)

    @property
    def _narrow(self) -> float:
        return len(self._width) / self._shape.width

    def _number(self, key: str) -> float:
        architecture = _text(self._demo, "general.architecture")
        return float(self._demo.fields[f"{architecture}.{key}"].contents())

    def _values(self, name: str) -> np.ndarray:
        return self._tensors[f"{name}.weight"].astype(np.float32)
