"""What must never happen in the fused Triton operators, tried in the interpreter; prints a JSON object of name -> held.

TRITON_INTERPRET=1 python -m tests.kernels.portable.fused_safety
"""

import json
from collections.abc import Callable

import torch
from tests.kernels.portable.fused_matrix import normal
from tests.kernels.test_saved_bytes import saved_bytes
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from trainwright.kernels import linear_cross_entropy as plain_loss
from trainwright.kernels import rms_norm as plain_rms_norm
from trainwright.kernels import rope as plain_rope
from trainwright.kernels import swiglu as plain_swiglu
from trainwright.kernels.portable import linear_cross_entropy as loss
from trainwright.kernels.portable import rms_norm, rope, swiglu
from trainwright.kernels.portable.operator import portable_attention
from trainwright.kernels.sdpa import sdpa_attention

CPU = torch.device("cpu")
NAN = float("nan")


def _everything(x: Tensor) -> list[Tensor]:
    """Outputs and input gradients of all operators on x of shape [tokens, 1, heads, 2 D], row by row."""
    tables = plain_rope.tables(len(x), x.shape[-1], 1e4, x.dtype, CPU)
    weight = normal(x.shape[-1])
    results = []
    for operator in (
        lambda leaf: rms_norm.rms_norm(leaf, weight, 1e-5),
        lambda leaf: sum(rms_norm.add_rms_norm(leaf, leaf * 0.5, weight, 1e-5)),
        swiglu.swiglu,
        lambda leaf: rope.rotate(leaf, *tables),
    ):
        leaf = x.detach().requires_grad_()
        out = operator(leaf)
        results += [out.detach(), *torch.autograd.grad((out * out).sum(), leaf)]
    return results


def a_row_of_nan_stays_alone() -> bool:
    x = normal(20, 1, 2, 32)
    clean = _everything(x)
    x[7, 0, 1] = NAN
    rest = torch.ones(20, 1, 2, dtype=torch.bool)
    rest[7, 0, 1] = False
    spoilt = _everything(x)
    return all(
        torch.equal(mine[rest], theirs[rest]) and bool(mine[~rest].isnan().all())
        for mine, theirs in zip(spoilt, clean, strict=True)
    )


def nothing_beyond_a_row_is_read() -> bool:
    """Rows of 38 in memory of rows of 64 that is NaN elsewhere."""
    whole = torch.full((6, 1, 3, 64), NAN)
    whole[..., :38] = normal(6, 1, 3, 38)
    part = whole[..., :38]
    return all(torch.equal(mine, want) for mine, want in zip(_everything(part), _everything(part.clone()), strict=True))


def nothing_beyond_an_output_is_written() -> bool:
    """Each kernel, with NaN behind (and for a rotation in place also around) what it writes."""
    rows, features = 5, 37
    x, weight, inverse = normal(rows, 2 * features), normal(features), torch.full((rows + 1, 1), NAN)
    outputs = [torch.full((rows * features + 200,), NAN) for _ in range(3)]
    total, out, gx = outputs
    rms_norm.forward[(rows,)](x, x, weight, total, out, inverse, features, 1e-5, 74, 74, ADD=True, BLOCK=64)
    partial = torch.full((2 * features + 200,), NAN)
    rms_norm.backward[(2,)](
        x, x, x, weight, inverse, gx, partial, rows, features, 74, 74, 74, ADD=True, BLOCK=64, STAGES=1
    )  # fmt: skip
    activated, gwide = torch.full((rows * features + 200,), NAN), torch.full((rows * 2 * features + 200,), NAN)
    swiglu.forward[(rows * 3,)](x, activated, features, 74, BLOCK=16)
    swiglu.backward[(rows * 3,)](x, x, gwide, features, 74, 74, BLOCK=16)
    held = [not bool(inverse[:rows].isnan().any()) and bool(inverse[rows:].isnan().all())]
    for values, size in ((total, 185), (out, 185), (gx, 185), (partial, 74), (activated, 185), (gwide, 370)):
        held.append(not bool(values[:size].isnan().any()) and bool(values[size:].isnan().all()))
    whole = torch.full((6, 1, 5, 20), NAN)
    part = whole[:, :, 1:4, 2:14]
    part.copy_(normal(6, 1, 3, 12))
    rope.rotate(part, *plain_rope.tables(6, 12, 1e4, torch.float32, CPU), in_place=True)
    held.append(not bool(part.isnan().any()) and int(whole.isnan().sum()) == whole.numel() - part.numel())
    return all(held)


def _passes(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both passes of the loss over logits of shape [tokens, entries], which are their gradient afterwards."""
    place = torch.arange(len(logits)) * 5 % logits.shape[1] - 1  # the first token's label is elsewhere
    lse, label = loss._statistics(logits, place)
    loss._to_gradient(logits, place, lse, torch.ones(len(logits)), 0.1)
    return lse, label, logits.clone()


def logits_are_their_rows_alone() -> bool:
    """Rows of 37 in memory of rows of 64 that is NaN elsewhere, and one row of NaN among others."""
    whole = torch.full((6, 64), NAN)
    whole[:, :37] = normal(6, 37)
    clean = _passes(whole[:, :37].clone())
    held = [torch.equal(mine, want) for mine, want in zip(_passes(whole[:, :37]), clean, strict=True)]
    held.append(bool(whole[:, 37:].isnan().all()))
    spoilt = normal(6, 37)
    spoilt[2] = NAN
    rest = torch.arange(6) != 2
    for mine, want in zip(_passes(spoilt), clean, strict=True):
        held.append(torch.equal(mine[rest], want[rest]) and bool(mine[2].isnan().all()))
    return all(held)


def masked_logits_add_nothing() -> bool:
    """A vocabulary whose first block, and more, is minus infinity: as padding of it may be."""
    logits = torch.full((2, loss.STATISTICS_BLOCK + 9), -float("inf"))
    logits[:, -3:] = normal(2, 3)
    want = logits.logsumexp(-1)
    lse, _, gradient = _passes(logits)
    return torch.allclose(lse, want) and not bool(gradient.isnan().any())


def no_logits_are_copied() -> bool:
    """The largest allocation is eight tokens' logits in their own dtype, and the weight's gradient in fp32."""
    usual, plain_loss._CPU_PIECE_BYTES = plain_loss._CPU_PIECE_BYTES, 8 * 4 * 500
    hidden, weight = (normal(rows, 4).half().requires_grad_() for rows in (200, 500))
    with torch.profiler.profile(profile_memory=True) as profile:
        loss.linear_cross_entropy(hidden, weight, torch.arange(200)).sum().backward()
    plain_loss._CPU_PIECE_BYTES = usual
    events = profile.profiler.kineto_results.events()
    return max(event.nbytes() for event in events if event.name() == "[memory]") == 2 * 8 * 500


def offsets_are_64_bit() -> bool:
    """Three rows 2^30 elements apart, in 4 GiB of memory that is touched only where the rows lie."""
    apart, size = 2**30 + 64, 64  # as a stride it fits into 32 bits, twice it does not
    buffer = torch.empty(2 * apart + size, dtype=torch.float16)
    x = buffer.as_strided((3, 1, 1, size), (apart, 1, 1, 1))
    x.copy_(normal(3, 1, 1, size))
    results = _everything(x), _everything(x.clone())
    held = [torch.equal(mine, want) for mine, want in zip(*results, strict=True)]
    dense = x[:, 0, 0].clone()
    held += [torch.equal(mine, want) for mine, want in zip(_passes(x[:, 0, 0]), _passes(dense), strict=True)]
    return all(held)


def two_runs_give_the_same_bits() -> bool:
    x = normal(150, 24).requires_grad_()
    weight = normal(24).requires_grad_()

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(rms_norm.rms_norm(x, weight, 1e-5).square().sum(), (x, weight))

    return all(torch.equal(one, other) for one, other in zip(gradients(), gradients(), strict=True))


def casts_are_in_the_order_of_internlm2() -> bool:
    x, weight = normal(9, 96).bfloat16(), normal(96).bfloat16()
    return torch.equal(rms_norm.rms_norm(x, weight, 1e-5), plain_rms_norm.rms_norm(x, weight, 1e-5))


def as_much_is_kept_as_by_torch() -> bool:
    x, weight = normal(8, 2, 4, 32).bfloat16().requires_grad_(), normal(32).bfloat16().requires_grad_()
    cos, sin = plain_rope.tables(8, 32, 1e4, torch.bfloat16, CPU)
    hidden, labels = normal(8, 32).bfloat16().requires_grad_(), torch.arange(8)
    pairs: tuple[tuple[Callable[[], object], Callable[[], object]], ...] = (
        (lambda: rms_norm.rms_norm(x, weight, 1e-5), lambda: plain_rms_norm.rms_norm(x, weight, 1e-5)),
        (lambda: rms_norm.add_rms_norm(x, x, weight, 1e-5), lambda: plain_rms_norm.add_rms_norm(x, x, weight, 1e-5)),
        (lambda: swiglu.swiglu(x), lambda: plain_swiglu.swiglu(x)),
        (lambda: rope.rotate(x, cos, sin), lambda: plain_rope.rotate(x, cos, sin)),
        (
            lambda: loss.linear_cross_entropy(hidden, hidden, labels),
            lambda: plain_loss.linear_cross_entropy(hidden, hidden, labels),
        ),
    )
    return all(saved_bytes(mine) == saved_bytes(theirs) for mine, theirs in pairs)  # type: ignore[arg-type]


def attention_keeps_what_torchs_does_of_whole_sequences() -> bool:
    """And the documents' places; of packed documents no padded copies either, as torch's needs them."""
    q, k, v = (normal(64, 2, heads, 16).bfloat16().requires_grad_() for heads in (4, 2, 2))
    edges = torch.tensor([[0, 5, 64], [0, 30, 64]], dtype=torch.int32)
    whole, plain = (saved_bytes(lambda a=a: a(q, k, v, None, None)) for a in (portable_attention, sdpa_attention))
    packed, padded = (saved_bytes(lambda a=a: a(q, k, v, edges, None)) for a in (portable_attention, sdpa_attention))
    place_bytes = 5 * 4
    return whole == plain + 2 * place_bytes and packed == plain + 4 * place_bytes < padded


def strides_of_weights_and_tables_are_kept() -> bool:
    """Every other element of a weight, and tables that lie transposed."""
    x, wide = normal(6, 1, 2, 16), normal(32)
    weight, (cos, sin) = wide[::2], plain_rope.tables(6, 16, 1e4, torch.float32, CPU)
    norms = [rms_norm.rms_norm(x, each, 1e-5) for each in (weight, weight.clone())]
    turned = [table.transpose(0, 3).contiguous().transpose(0, 3) for table in (cos, sin)]
    return torch.equal(*norms) and torch.equal(rope.rotate(x, *turned), rope.rotate(x, cos, sin))


def no_rows_are_no_work() -> bool:
    x = torch.empty(0, 1, 2, 32)
    return all(len(result) == 0 for result in _everything(x)) and not bool(
        rms_norm._norm_backward(x, None, x, torch.ones(32), torch.empty(0, 1, 2, 1))[1].any()
    )


def a_zig_zag_split_turns_as_the_whole() -> bool:
    x, (cos, sin) = normal(16, 2, 3, 8), plain_rope.tables(16, 8, 1e4, torch.float32, CPU)
    whole = rope.rotate(x, cos, sin)
    held = []
    for ranks in (2, 4):
        chunk = 16 // (2 * ranks)
        for rank in range(ranks):
            firsts = (rank * chunk, (2 * ranks - 1 - rank) * chunk)
            positions = plain_rope.positions_of(tuple((first, chunk) for first in firsts), CPU)
            own = positions[:, 0].long()
            held.append(torch.equal(rope.rotate(x[own], cos, sin, positions), whole[own]))
    return all(held)


def autograd_refuses_to_overwrite_what_it_needs() -> bool:
    cos, sin = plain_rope.tables(4, 8, 1e4, torch.float32, CPU)
    leaf = normal(4, 1, 2, 8).requires_grad_()
    turned = rope.rotate(leaf.exp(), cos, sin, in_place=True)  # exp keeps its output
    for attempt in (lambda: turned.sum().backward(), lambda: rope.rotate(leaf, cos, sin, in_place=True)):
        try:
            attempt()
        except RuntimeError:
            continue
        return False
    return True


def operators_are_registered_in_full() -> bool:
    """torch's own check of schemas, fake implementations and gradients."""
    x, weight = normal(3, 2, 8).requires_grad_(), normal(8).requires_grad_()
    cos, sin = plain_rope.tables(3, 8, 1e4, torch.float32, CPU)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    wide = normal(3, 2, 4, 8)
    calls: tuple[tuple[object, tuple[object, ...]], ...] = (
        (rms_norm._norm, (x, weight, 1e-5)),
        (rms_norm._add_norm, (x, x, weight, 1e-5)),
        (rms_norm._norm_backward, (x.detach(), x.detach(), x.detach(), weight.detach(), torch.ones(3, 2, 1))),
        (swiglu.swiglu, (x,)),
        (swiglu._swiglu_backward, (normal(3, 2, 4), x.detach())),
        (rope._rotated, (wide.requires_grad_(), cos, sin, None, 1.0)),
        (rope._rotate_in_place, (wide.detach().clone(), cos, sin, None)),
        (loss._statistics, (normal(3, 8), torch.tensor([0, -1, 7]))),
        (loss._to_gradient, (normal(3, 8), torch.tensor([0, -1, 7]), torch.ones(3), torch.ones(3), 0.1)),
    )
    for operator, arguments in calls:
        torch.library.opcheck(operator, arguments, test_utils=tests)  # type: ignore[arg-type]
    return True


def fake_tensors_pass_through() -> bool:
    with FakeTensorMode():
        x = torch.empty(64, 2, 4, 64, dtype=torch.bfloat16, requires_grad=True)
        weight = torch.empty(64, dtype=torch.bfloat16, requires_grad=True)
        cos = torch.empty(64, 1, 1, 32, dtype=torch.bfloat16)
        total, out = rms_norm.add_rms_norm(x, x, weight, 1e-5)
        turned = rope.rotate(rope.rotate(out, cos, cos), cos, cos, in_place=True)
        loss = swiglu.swiglu(turned).sum() + total.sum()
        gradients = torch.autograd.grad(loss, (x, weight))
    return [g.shape for g in gradients] == [x.shape, weight.shape] and gradients[0].dtype == torch.bfloat16


CHECKS: dict[str, Callable[[], bool]] = {
    "a row of NaN": a_row_of_nan_stays_alone,
    "reads": nothing_beyond_a_row_is_read,
    "writes": nothing_beyond_an_output_is_written,
    "logits": logits_are_their_rows_alone,
    "masked logits": masked_logits_add_nothing,
    "copies of logits": no_logits_are_copied,
    "64-bit offsets": offsets_are_64_bit,
    "equal bits": two_runs_give_the_same_bits,
    "order of casts": casts_are_in_the_order_of_internlm2,
    "kept bytes": as_much_is_kept_as_by_torch,
    "kept by attention": attention_keeps_what_torchs_does_of_whole_sequences,
    "other strides": strides_of_weights_and_tables_are_kept,
    "no rows": no_rows_are_no_work,
    "zig-zag": a_zig_zag_split_turns_as_the_whole,
    "overwriting": autograd_refuses_to_overwrite_what_it_needs,
    "registration": operators_are_registered_in_full,
    "fake tensors": fake_tensors_pass_through,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: check() for name, check in CHECKS.items()}))
