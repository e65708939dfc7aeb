"""Checkpoints: `checkpoints/iter_0000500/`, whole or not there at all.

    checkpoints/
        latest_checkpointed_iteration.txt     Megatron's name; the step of the newest one
        iter_0000500/
            .metadata, __0_0.distcp, ...      torch.distributed.checkpoint, in Megatron-core's fully reshardable form
            common.pt, metadata.json          Megatron-core's own
            train_state.json                  step and tokens consumed
            resolved.toml, lineage.json       how it was made: copies from the run's folder
            tokenizer/                        what its token ids mean
            COMPLETE                          written last

Everything is written into `iter_0000500.tmp` and renamed, so `kill -9` costs at most the steps since the last one.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import ChainedOptimizer
from msgspec import Struct
from torch import distributed
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from trainwright.runtime import host
from trainwright.runtime.train import optimizer_state, parallel
from trainwright.spec.artefact import LATEST_CHECKPOINT_FILE

COMPLETE_FILE = "COMPLETE"
STATE_FILE = "train_state.json"
HEAD_WEIGHT = "output_layer.weight"  # of the layer that makes logits or scores


class TrainState(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How far a phase has come; `optimizer_steps` also counts the phases that it started from."""

    stage: str
    step: int
    optimizer_steps: int
    consumed_tokens: int
    consumed_tokens_by_source: dict[str, int]


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder `checkpoints`; None if there is none."""
    return max((path for path in _iterations(folder) if (path / COMPLETE_FILE).is_file()), key=_step, default=None)


def _iterations(folder: Path) -> list[Path]:
    return [path for path in folder.glob("iter_*") if path.name.removeprefix("iter_").isdigit()]


def _step(iteration: Path) -> int:
    return int(iteration.name.removeprefix("iter_"))


def read_state(checkpoint: Path) -> TrainState:
    """What `train_state.json` of a checkpoint says."""
    return msgspec.json.decode((checkpoint / STATE_FILE).read_bytes(), type=TrainState)


def save(
    folder: Path,
    chunks: list[GPTModel],
    optimizer: ChainedOptimizer,
    state: TrainState,
    keep: int,
    companions: Mapping[str, Path] = MappingProxyType({}),
) -> Path:
    """`folder/iter_<step>` is complete and named as the latest; older ones than the last `keep` are gone.

    `companions` are small files that are copied into it, so that it explains itself wherever it is carried: the path
    in the checkpoint, and where it comes from. A collective: every rank calls it. Only rank 0 touches names; all see
    the same file system.
    """
    final = folder / f"iter_{state.step:07d}"
    temporary = folder / f"{final.name}.tmp"
    first = distributed.get_rank() == 0
    if first:
        for left in folder.glob("iter_*.tmp"):  # of a process that was killed while it saved
            shutil.rmtree(left)
        temporary.mkdir(parents=True)
    parallel.barrier()
    with host.expected_warnings():
        content = _content(chunks, optimizer, loading=False)
        dist_checkpointing.save(content, str(temporary), sharded_strategy=_InProcessSave())
    parallel.barrier()
    if first:
        _write(temporary / STATE_FILE, msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
        for name, origin in companions.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            _write(temporary / name, origin.read_bytes())
        _write(temporary / COMPLETE_FILE, b"")
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _write(folder / f"{LATEST_CHECKPOINT_FILE}.tmp", f"{state.step}\n".encode())
        os.replace(folder / f"{LATEST_CHECKPOINT_FILE}.tmp", folder / LATEST_CHECKPOINT_FILE)
        _flush_folder(folder)
        for old in sorted(_iterations(folder), key=_step)[:-keep]:
            shutil.rmtree(old)
    parallel.barrier()
    return final


def load(checkpoint: Path, chunks: list[GPTModel], optimizer: ChainedOptimizer) -> TrainState:
    """Weights, moments and masters are the checkpoint's, whatever layout saved it; where it had come. A collective."""
    state = read_state(checkpoint)
    with host.expected_warnings():
        loaded = dist_checkpointing.load(_content(chunks, optimizer, loading=True), str(checkpoint))
    _put_weights(chunks, loaded["model"])
    optimizer_state.restore(optimizer, loaded["optimizer"], state.optimizer_steps)
    return state


def load_weights(chunks: list[GPTModel], checkpoint: Path, *, head: bool = True) -> TrainState:
    """The chunks' weights are the checkpoint's; the optimizer's part of it is not read. A collective.

    Without `head` that layer stays as it is: a model that gives scores starts from one that gives logits, or anew.
    """
    weights = _weights(chunks, _metadata())
    if not head:
        for chunk in weights.values():
            chunk.pop(HEAD_WEIGHT, None)
    with host.expected_warnings():
        loaded = dist_checkpointing.load({"model": weights}, str(checkpoint))
    _put_weights(chunks, loaded["model"], head=head)
    return read_state(checkpoint)


def _metadata() -> dict[str, Any]:
    return {
        "distrib_optim_sharding_type": "fully_reshardable",  # the only form another layout can load
        "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
        "chained_optim_avoid_prefix": True,
    }


def _content(chunks: list[GPTModel], optimizer: ChainedOptimizer, *, loading: bool) -> dict[str, Any]:
    metadata = _metadata()
    weights = _weights(chunks, metadata)
    tensors = optimizer_state.sharded_tensors(optimizer, weights, metadata, loading=loading)
    return {"model": weights, "optimizer": tensors}


def _weights(chunks: list[GPTModel], metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By chunk, its sharded tensors. Megatron's empty `_extra_state` entries are left out."""
    return {
        str(index): {
            key: value
            for key, value in chunk.sharded_state_dict(metadata=metadata).items()
            if not key.endswith("_extra_state")
        }
        for index, chunk in enumerate(chunks)
    }


def _put_weights(chunks: list[GPTModel], weights: dict[str, dict[str, Any]], *, head: bool = True) -> None:
    for index, chunk in enumerate(chunks):
        chunk.load_state_dict(weights[str(index)], strict=head)


class _InProcessSave(TorchDistSaveShardedStrategy):  # type: ignore[misc]
    """Megatron-core's save strategy, written by this process itself.

    Megatron's own writer forks a process full of threads and starts a server by `spawn`, for saves in the background.
    """

    def __init__(self) -> None:
        super().__init__("torch_dist", 1)

    def save(self, sharded_state_dict: ShardedStateDict, checkpoint_dir: Path) -> None:
        tensors, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded_state_dict, self.keep_only_main_replica)
        save_distributed(
            mcore_to_pyt_state_dict(tensors, False),
            storage_writer=FileSystemWriter(checkpoint_dir, single_file_per_rank=True, sync_files=True),
            planner=MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False),
        )


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Renames in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
