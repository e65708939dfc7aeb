"""Named tensors as safetensors files: one, or several with an index when they exceed a size."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

INDEX_FILE = "model.safetensors.index.json"


def write_shards(tensors: Iterable[tuple[str, Tensor]], out: Path, *, dtype: torch.dtype, shard_bytes: int) -> int:
    """`out` holds `model.safetensors`, or `model-00001-of-0000N.safetensors`... with their index; returns the bytes.

    Tensors are converted to `dtype` and written as they come, so that at most one shard of copies is in memory. A
    shard exceeds `shard_bytes` only by being a single tensor.
    """
    shard: dict[str, Tensor] = {}
    places: dict[str, int] = {}
    total_bytes = shard_size = 0
    written: list[Path] = []

    def flush() -> None:
        path = out / f"shard-{len(written)}.safetensors"
        save_file(shard, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors keeps its files to their owner
        written.append(path)
        shard.clear()

    for name, tensor in tensors:
        size_bytes = tensor.numel() * dtype.itemsize
        if shard and shard_size + size_bytes > shard_bytes:
            flush()
            shard_size = 0
        # A copy always: safetensors refuses tensors that share memory, as the halves of a fused matrix do.
        shard[name] = tensor.detach().to("cpu", dtype, copy=True).contiguous()
        places[name] = len(written)
        shard_size += size_bytes
        total_bytes += size_bytes
    flush()
    if len(written) == 1:
        written[0].rename(out / "model.safetensors")
        return total_bytes
    names = [f"model-{number:05d}-of-{len(written):05d}.safetensors" for number in range(1, len(written) + 1)]
    for path, name in zip(written, names, strict=True):
        path.rename(out / name)
    index = {
        "metadata": {"total_size": total_bytes},
        "weight_map": {name: names[place] for name, place in sorted(places.items())},
    }
    (out / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return total_bytes


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder that `write_shards` filled."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(path))
    return tensors
