"""Initial weights that depend on the seed, a parameter's global name and the row, and on nothing else.

So every parallel layout starts from the same model, and a rank fills its shard without ever holding a whole matrix.
normal(0, std), where the two matrices that write to the residual stream (wo, w2) are scaled by 1/sqrt(2 (layer + 1)):
InternEvo's initialisation of InternLM2. Norms are one, biases zero.

R: rows of the whole matrix, C: its columns; a shard holds some rows of all columns, or all rows of some columns.
"""

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from torch import Tensor

_DEEP = ("self_attention.linear_proj.weight", "mlp.linear_fc2.weight")


def initialise(chunks: list[GPTModel], *, seed: int, std: float) -> None:
    """Every parameter of the chunks holds its initial value."""
    with torch.no_grad():
        for name, parameter in named_parameters(chunks):
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith("layernorm.weight") else 0.0)
            else:
                _fill(parameter, name, seed, std)


def named_parameters(chunks: list[GPTModel]) -> Iterator[tuple[str, Tensor]]:
    """Every parameter under the name it has in the whole model: layers are counted over all stages, from 0."""
    for chunk in chunks:
        layers = [layer.layer_number - 1 for layer in chunk.decoder.layers]
        for name, parameter in chunk.named_parameters():
            head, _, rest = name.partition("decoder.layers.")
            if rest and not head:
                local, _, tail = rest.partition(".")
                name = f"decoder.layers.{layers[int(local)]}.{tail}"
            yield name, parameter


def _fill(parameter: Tensor, name: str, seed: int, std: float) -> None:
    """The shard holds its part of the matrix `name`."""
    if name.endswith(_DEEP):
        layer = int(name.split(".")[2])
        std = std / math.sqrt(2 * (layer + 1))
    if name == "output_layer.weight" and getattr(parameter, "shared_embedding", False):
        name = "embedding.word_embeddings.weight"  # the tied copy on the last pipeline stage
    rows = _rows(parameter, name)
    columns = parameter.shape[1]
    first = 0
    if getattr(parameter, "partition_dim", -1) == 1:
        first = columns * parallel_state.get_tensor_model_parallel_rank()
        columns *= parallel_state.get_tensor_model_parallel_world_size()
    draw = _Rows(name, seed, columns)
    block = np.empty((min(len(rows), max(1, (1 << 22) // columns)), columns), dtype=np.float32)
    for start in range(0, len(rows), len(block)):
        part = rows[start : start + len(block)]
        for index, row in enumerate(part):
            draw.into(block[index], row)
        values = torch.from_numpy(block[: len(part), first : first + parameter.shape[1]])
        parameter[start : start + len(part)].copy_(values * std)


def _rows(parameter: Tensor, name: str) -> list[int]:
    """The rows of the whole matrix that this rank holds, in their order here."""
    held = parameter.shape[0]
    if getattr(parameter, "partition_dim", -1) != 0:
        return list(range(held))
    rank = parallel_state.get_tensor_model_parallel_rank()
    if not name.endswith("mlp.linear_fc1.weight"):
        return list(range(rank * held, (rank + 1) * held))
    # The whole is [gate; up]; a rank holds a slice of the gate above the same slice of up.
    half = held // 2
    whole_half = half * parallel_state.get_tensor_model_parallel_world_size()
    return [base + rank * half + row for base in (0, whole_half) for row in range(half)]


class _Rows:
    """Standard normal rows from a counter-based generator: the key is (seed, name), the counter the row."""

    def __init__(self, name: str, seed: int, columns: int) -> None:
        digest = hashlib.blake2b(f"{seed}/{name}/{columns}".encode(), digest_size=16).digest()
        self._bits = np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64))
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state

    def into(self, out: np.ndarray[tuple[int], np.dtype[np.float32]], row: int) -> None:
        self._state["state"]["counter"][:] = (0, 0, row, 0)
        self._state["buffer_pos"] = 4
        self._state["has_uint32"] = 0
        self._bits.state = self._state
        self._generator.standard_normal(dtype=np.float32, out=out)
