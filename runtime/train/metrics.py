"""The figures of a step: how they are counted, and where they are kept (`metrics.jsonl` and TensorBoard)."""

import json
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch.utils.tensorboard import SummaryWriter

from trainwright.spec.artefact import METRICS_FILE
from trainwright.spec.plan import ModelPlan


def model_flops_per_token(
    model: ModelPlan, sequence_length: int, head: Literal["language", "score"] = "language"
) -> float:
    """Floating-point operations a trained token needs, forward and backward (three times forward).

    Two per parameter of a matrix product, the embedding's lookup not counted; attention's two products over half of
    the square, for it is causal (a pack of documents counts like one); recomputation not counted.
    """
    qkv = model.hidden_size * model.head_size * (model.heads + 2 * model.kv_heads)
    projection = model.heads * model.head_size * model.hidden_size
    mlp = 3 * model.hidden_size * model.ffn_size
    outputs = model.vocab_size if head == "language" else 1
    products = model.layers * (qkv + projection + mlp) + model.hidden_size * outputs
    attention = model.layers * model.heads * model.head_size * sequence_length  # 2 products, each S / 2 positions
    return 3.0 * 2.0 * (products + attention)


def peak_memory_gb() -> float:
    """The most memory this process has held: allocated on its CUDA device, else resident in RAM. 10^9 bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class MetricsLog:
    """Appends rows to `metrics.jsonl` and to TensorBoard, beginning after the step that training continues from."""

    def __init__(self, out: Path, stage: str, after_step: int) -> None:
        """Rows of later steps, left by an attempt that was killed, are gone after the call."""
        self._stage = stage
        path = out / METRICS_FILE
        _truncate(path, after_step)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(out / "tb"), purge_step=after_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """The row is handed to the operating system: it outlives this process."""
        self._file.write(json.dumps({"step": step, "stage": self._stage, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _truncate(path: Path, after_step: int) -> None:
    """The file holds its rows up to the step; a last line that a kill cut short is gone."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > after_step:
            break
        kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)
