"""Weights come back from disk as they were, in one file or in several."""

import json
from pathlib import Path

import pytest
import torch

from trainwright.runtime.export.shards import INDEX_FILE, read_shards, write_shards

TENSORS = {f"t{i}": torch.arange(8.0).reshape(2, 4) + i for i in range(5)}


@pytest.mark.parametrize(("shard_bytes", "files"), [(10_000, 1), (64, 3), (1, 5)])
def test_every_tensor_is_in_the_file_the_index_names(tmp_path: Path, shard_bytes: int, files: int) -> None:
    total = write_shards(TENSORS.items(), tmp_path, dtype=torch.float32, shard_bytes=shard_bytes)
    assert total == 5 * 32
    assert len(list(tmp_path.glob("*.safetensors"))) == files
    back = read_shards(tmp_path)
    assert all(torch.equal(back[name], TENSORS[name]) for name in TENSORS)
    assert back.keys() == TENSORS.keys()
    if files > 1:
        index = json.loads((tmp_path / INDEX_FILE).read_text())
        assert index["metadata"]["total_size"] == total
        assert set(index["weight_map"].values()) == {p.name for p in tmp_path.glob("*.safetensors")}


def test_halves_of_one_tensor_are_written_apart_and_converted(tmp_path: Path) -> None:
    whole = torch.arange(8.0)
    left, right = whole.chunk(2)
    write_shards([("left", left), ("right", right)], tmp_path, dtype=torch.bfloat16, shard_bytes=10_000)
    back = read_shards(tmp_path)
    assert back["right"].dtype == torch.bfloat16
    assert torch.equal(back["right"].float(), right)
