"""The log-probabilities of all answers under the model that DPO starts from: computed once, before the first step.

    <stage>/reference.npz   by split, one figure a document, in the order of `dpo_rows.Lists`

So a frozen second model need not lie in memory while the first is trained, and a stage that goes on under another
layout goes on with the same reference.

B rows of a micro-batch, S their positions, D documents.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel.mappings import reduce_from_tensor_model_parallel_region
from numpy.typing import NDArray
from torch import Tensor, distributed

from trainwright.runtime import host
from trainwright.runtime.align.dpo_rows import DpoBatch, DpoRows, Lists
from trainwright.runtime.align.packed import PADDING, as_long_as, own_rows
from trainwright.runtime.store import write_atomically
from trainwright.runtime.train import checkpoint
from trainwright.runtime.train.model import model_of
from trainwright.runtime.train.objective import Figures, LossOf
from trainwright.runtime.train.step import forward_pass, over_all_ranks
from trainwright.runtime.train.summary import PhaseError
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import DpoStage

REFERENCE_FILE = "reference.npz"


def log_probabilities(batch: DpoBatch, loss_BS: Tensor) -> Tensor:
    """policy_D: of each document's answer, the sum of its tokens' log-probabilities; the same on all context ranks."""
    own_D = batch.document_sums(-loss_BS * batch.counted_BS)
    if parallel_state.get_context_parallel_world_size() <= 1:
        return own_D
    # Forward the sum over the ranks, backward the gradient as it is: each rank makes the same loss of whole sums.
    whole_D: Tensor = reduce_from_tensor_model_parallel_region(own_D, group=parallel_state.get_context_parallel_group())
    return whole_D


def reference_of(
    stage: DpoStage, lists: Mapping[str, Lists], start: Path, file: Path
) -> dict[str, NDArray[np.float64]]:
    """By split, the log-probabilities of all documents under the start: from the file, which is made if need be."""
    there = torch.tensor(float(file.exists()), device=host.device())
    if over_all_ranks(there) == distributed.get_world_size():
        with np.load(file) as content:
            return dict(content)
    chunks = model_of(stage, seed=None)
    newest = checkpoint.latest(start / CHECKPOINTS)
    if newest is None:
        raise PhaseError(f"stage `{stage.start_from}` left no complete checkpoint in {start / CHECKPOINTS}")
    checkpoint.load_weights(chunks, newest)
    found = {split: _all_log_probabilities(chunks, stage, part) for split, part in lists.items()}
    if distributed.get_rank() == 0:
        content = io.BytesIO()
        np.savez(content, train=found["train"], held_out=found["held_out"])
        write_atomically(file, content.getvalue())
    return found


def _all_log_probabilities(chunks: list[GPTModel], stage: DpoStage, lists: Lists) -> NDArray[np.float64]:
    """reference_D of all documents of the lists, on every rank. A collective."""
    rows = DpoRows(stage, lists, epochs=1)
    reference_D = torch.zeros(lists.documents, dtype=torch.float64, device=host.device())
    ranks = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_context_parallel_rank()
    for step in range(as_long_as(stage, len(rows)).steps):
        batches = [rows.micro_batch(numbers) for numbers in own_rows(stage, step)]
        results = forward_pass(chunks, _forward_only, batches)
        if ranks == (0, 0) and results:  # on the last pipeline stage
            for batch, result in zip(batches, results, strict=True):
                real_D = batch.owner_D != PADDING
                reference_D[batch.owner_D[real_D]] = result["policy_D"][real_D]
    return over_all_ranks(reference_D).cpu().numpy()


def _forward_only(chunk: Any, batch: DpoBatch) -> tuple[Tensor, LossOf]:
    def keep(loss_BS: Tensor) -> tuple[Tensor, Tensor, Figures]:
        policy_D = log_probabilities(batch, loss_BS)
        return policy_D.sum(), torch.ones_like(policy_D[0], dtype=torch.int), {"policy_D": policy_D}

    return chunk(batch.tokens_BS, None, batch.edges_BE, labels=batch.labels_BS), keep
