"""Splits a model file into parts."""

from __future__ import annotations

from pathlib import Path

import gguf

TENSORS_A_PART = 8


def split_file(source: Path, prefix: Path, *, small_first: bool = False) -> list[Path]:
    """Writes what a GGUF file holds as PREFIX-00001-of-0000N.gguf and so on.

    Args:
        source: The whole file.
        prefix: The parts' folder and the beginning of their names.
        small_first: Whether the first part has metadata alone.

    Returns:
        The parts' files, in their order.

    Format: the parts that llama.cpp's gguf-split writes, and gguf's writer too.
    """
    reader = gguf.GGUFReader(source)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    prefix.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(
        prefix.with_suffix(".gguf"),
        architecture,
        split_max_tensors=TENSORS_A_PART,
        small_first_shard=small_first,
    )
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == gguf.Keys.General.ARCHITECTURE:
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        item_type = field.types[-1] if is_array else None
        writer.add_key_value(name, field.contents(), field.types[0], item_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(prefix.parent.glob(f"{prefix.name}-*.gguf"))
