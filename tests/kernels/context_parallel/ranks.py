"""One process of a small world that compares exchanges with one call: `python -m ...ranks RANK RANKS JOB`.

Run by test_context_parallel.py, not collected. Every rank draws the same whole tensors and takes its slices; rank 0
writes the largest differences of output and gradients over all ranks, relative to the largest number of each.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from trainwright.kernels.context_parallel import gathered
from trainwright.kernels.context_parallel.attention import Exchange, context_attention
from trainwright.kernels.context_parallel.local import local_attention
from trainwright.kernels.context_parallel.zigzag import positions
from trainwright.kernels.reference import reference_attention

LENGTH, ROWS, SIZE = 32, 2, 8
EDGES = {
    "one document": None,
    "documents across slices": [[0, 3, 11, 12, 27, 32], [0, 32, 32, 32, 32, 32]],
    "documents that end at slices": [[0, 4, 8, 24, 32], [0, 1, 2, 30, 32]],
}


def exchanges(ranks: int) -> dict[str, Exchange]:
    """All ranks make all groups, in the same order."""
    whole = distributed.group.WORLD
    assert whole is not None
    made = {name: Exchange.of(name, whole) for name in ("gather", "ring", "all_to_all")}
    made["gather in parts"] = made["gather"]
    if ranks == 4:
        heads = _own([[0, 1], [2, 3]])
        tokens = _own([[0, 2], [1, 3]])
        made["all-to-all inside, ring across"] = Exchange(heads, tokens, "ring")
        made["all-to-all inside, gather across"] = Exchange(heads, tokens, "gather")
    return made


def _own(parts: list[list[int]]) -> ProcessGroup:
    groups: list[ProcessGroup] = [distributed.new_group(part) for part in parts]
    return next(group for group, part in zip(groups, parts, strict=True) if distributed.get_rank() in part)


def drawn(heads: int, groups: int, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v and the gradient of the output, of the whole sequence."""
    generator = torch.Generator().manual_seed(heads * 100 + groups)
    counts = (heads, groups, groups, heads)
    return [
        torch.randn(LENGTH, ROWS, count, SIZE, generator=generator, dtype=torch.float64).to(dtype) for count in counts
    ]


def differences(exchange: Exchange, edges: Tensor | None, heads: int, groups: int, dtype: torch.dtype) -> list[float]:
    """Of o, gq, gk and gv: the largest over all ranks."""
    q, k, v, go = drawn(heads, groups, dtype)
    local = local_attention("sdpa", dtype, q.device)
    whole_q, whole_k, whole_v = (x.double().requires_grad_() for x in (q, k, v))
    whole_o = reference_attention(whole_q, whole_k, whole_v, edges, 0.4)
    expected = [whole_o.detach(), *torch.autograd.grad(whole_o, (whole_q, whole_k, whole_v), go.double())]
    own = positions(LENGTH, distributed.get_rank(), distributed.get_world_size())
    q, k, v = (x[own].requires_grad_() for x in (q, k, v))
    o = context_attention(q, k, v, edges, 0.4, exchange, local)
    found = [o.detach(), *torch.autograd.grad(o, (q, k, v), go[own])]
    assert [x.dtype for x in found] == [dtype] * 4
    apart = [
        ((mine.double() - whole[own]).abs().max() / whole.abs().max()).item()
        for mine, whole in zip(found, expected, strict=True)
    ]
    largest = torch.tensor(apart, dtype=torch.float64)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return largest.tolist()


def main() -> None:
    torch.set_num_threads(1)
    rank, ranks, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    distributed.init_process_group("gloo", init_method=f"file://{path}.meeting", rank=rank, world_size=ranks)
    result = {}
    for name, exchange in exchanges(ranks).items():
        gathered._on_cpu = lambda q_SBHD, name=name: "in parts" not in name  # type: ignore[misc]
        for what, rows in EDGES.items():
            edges = None if rows is None else torch.tensor(_filled(rows), dtype=torch.int32)
            for heads, groups in ((4, 4), (8, 2), (4, 1)):
                case = f"{name}, {what}, {heads} heads over {groups}"
                result[case] = differences(exchange, edges, heads, groups, torch.float64)
        result[f"{name}, bf16"] = differences(exchange, None, 8, 2, torch.bfloat16)
    refused = ""
    try:
        q, k, v, _ = drawn(3, 3, torch.float64)
        local = local_attention("reference", q.dtype, q.device)
        context_attention(q, k, v, None, None, exchanges(ranks)["all_to_all"], local)
    except ValueError as error:
        refused = str(error)
    distributed.destroy_process_group()
    if rank == 0:
        path.with_suffix(".result").write_text(json.dumps({"differences": result, "refused": refused}))


def _filled(rows: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [LENGTH] * (longest - len(row)) for row in rows]


if __name__ == "__main__":
    main()
