"""The head and its loss without logits: equal to torch's, whole and split over ranks, in bounded memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from trainwright.kernels import linear_cross_entropy as module
from trainwright.kernels.linear_cross_entropy import IGNORED, linear_cross_entropy
from trainwright.kernels.validated import has_triton


def inputs(tokens: int = 37, hidden: int = 16, entries: int = 50, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(tokens, hidden, generator=generator).to(dtype).requires_grad_()
    w = torch.randn(entries, hidden, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(entries, (tokens,), generator=generator)
    labels[::7] = IGNORED
    return [h, w, labels]


def plain(h: Tensor, w: Tensor, labels: Tensor, z_loss: float = 0.0) -> Tensor:
    logits = h @ w.T
    loss = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    return loss + (z_loss * logits.logsumexp(-1).square()).where(labels != IGNORED, 0.0)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CPU_PIECE_BYTES", 8 * 4 * 50)  # eight tokens of 50 entries


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_losses_and_gradients_are_torchs(z_loss: float) -> None:
    h, w, labels = inputs()
    weight = torch.linspace(-1, 2, len(labels), dtype=torch.float64)
    ours, theirs = linear_cross_entropy(h, w, labels, z_loss=z_loss), plain(h, w, labels, z_loss)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad((ours * weight).sum(), (h, w))
    want = torch.autograd.grad((theirs * weight).sum(), (h, w))
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("small_pieces")
def test_bf16_is_as_near_to_float64_as_torch() -> None:
    h, w, labels = inputs(dtype=torch.bfloat16)
    exact = _results(plain(h.double(), w.double(), labels), h, w)
    torchs, ours = (_results(loss(h, w, labels), h, w) for loss in (plain, linear_cross_entropy))
    for want, theirs, mine in zip(exact, torchs, ours, strict=True):
        assert (mine - want).norm() <= 2 * (theirs - want).norm() + 1e-3 * want.norm()


def _results(loss: Tensor, h: Tensor, w: Tensor) -> list[Tensor]:
    return [x.detach().double() for x in (loss, *torch.autograd.grad(loss.sum(), (h, w)))]


def test_extreme_logits_stay_finite() -> None:
    h = torch.full((3, 4), 100.0, requires_grad=True)
    w = torch.tensor([[100.0] * 4, [-100.0] * 4, [0.0] * 4], requires_grad=True)
    loss = linear_cross_entropy(h, w, torch.tensor([0, 1, 2]))
    assert loss.tolist() == [0.0, 80_000.0, 40_000.0]
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss.sum(), (h, w)))


def test_a_label_outside_of_the_vocabulary_is_refused() -> None:
    h, w, labels = inputs()
    labels[3] = 50
    with pytest.raises(ValueError, match="label 50 is outside of 50 entries"):
        linear_cross_entropy(h, w, labels)


class _Largest(TorchDispatchMode):
    """The largest tensor any operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.untyped_storage().nbytes() // result.element_size())
        return result


@pytest.mark.usefixtures("small_pieces")
def test_no_tensor_grows_with_tokens_times_vocabulary() -> None:
    h, w, labels = inputs(tokens=200, hidden=4)
    with _Largest() as largest:
        linear_cross_entropy(h, w, labels).sum().backward()
    assert largest.elements <= 4 * 200  # the hidden states themselves; logits would be 50 * 200


def _split(rank: int, ranks: int, meet: str, out: str, in_triton: bool) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=ranks)
    h, w, labels = inputs()
    own = w.detach().chunk(ranks)[rank].requires_grad_()
    loss = linear_cross_entropy(h, own, labels, z_loss=0.1, group=distributed.group.WORLD)
    dh, dw = torch.autograd.grad(loss.sum(), (h, own))
    distributed.all_reduce(dh)
    results = [(loss.detach(), dh, dw)]
    if in_triton:
        from trainwright.kernels.portable import linear_cross_entropy as portable

        h, own = (x.detach().float().requires_grad_() for x in (h, own))
        loss = portable.linear_cross_entropy(h, own, labels, z_loss=0.1, group=distributed.group.WORLD)
        dh, dw = torch.autograd.grad(loss.sum(), (h, own))
        distributed.all_reduce(dh)
        results.append((loss.detach(), dh, dw))
    torch.save(results, f"{out}.{rank}")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_a_split_vocabulary_gives_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In float64 by torch's passes, in fp32 by ours in Triton's interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read by the ranks while they import Triton
    arguments = (2, str(tmp_path / "meet"), str(tmp_path / "out"), has_triton())
    multiprocessing.spawn(_split, arguments, nprocs=2)  # type: ignore[no-untyped-call]
    h, w, labels = inputs()
    want = plain(h, w, labels, 0.1)
    dh, dw = torch.autograd.grad(want.sum(), (h, w))
    for rank, part in enumerate(dw.chunk(2)):
        exact, *in_triton = torch.load(tmp_path / f"out.{rank}")
        torch.testing.assert_close(exact, (want.detach(), dh, part), rtol=1e-10, atol=1e-12)
        for got in in_triton:
            torch.testing.assert_close(got, (want.detach().float(), dh.float(), part.float()), rtol=1e-5, atol=1e-6)
