"""Every storage is counted once, from birth to death, under what it is for."""

import torch

from trainwright.runtime.trace.allocations import Allocations

KIB = 1024


def test_a_storage_counts_until_it_dies_and_a_view_counts_nothing() -> None:
    with Allocations({}) as allocations:
        x = torch.zeros(1024)
        view = x.view(32, 32)[1:].t()
        x.add_(1)
        assert allocations.allocated_bytes == 4 * KIB
        del x
        assert allocations.allocated_bytes == 4 * KIB
        del view
        assert allocations.allocated_bytes == 0


def test_sizes_are_those_of_the_cuda_allocator() -> None:
    with Allocations({}) as allocations:
        kept = [torch.zeros(1), torch.zeros(129)]
        assert allocations.allocated_bytes == 512 + 1024
    assert len(kept) == 2


def test_a_storage_that_is_resized_counts_as_it_is() -> None:
    with Allocations({}) as allocations:
        x = torch.zeros(1024)
        x.untyped_storage().resize_(0)
        assert allocations.allocated_bytes == 0
        x.untyped_storage().resize_(4 * KIB)
        assert allocations.allocated_bytes == 4 * KIB


def test_what_the_backward_pass_needs_is_known_from_what_is_not() -> None:
    with Allocations({}) as allocations:
        weight = torch.ones(1024, requires_grad=True)
        allocations.assign("parameters", weight)
        allocations.begin()
        allocations.enter(made="temporaries", saved="activations")
        with allocations.at("forward"):
            saved = weight * 2
            loss = (saved * saved).sum()
        allocations.leave()
    assert allocations.peak.moment == "forward"
    # The product is not saved, and the sum of it takes a block of the smallest size.
    assert allocations.peak.kinds == {"parameters": 4 * KIB, "activations": 4 * KIB, "temporaries": 4 * KIB + 512}
    assert loss.item() == 4096


def test_what_is_saved_in_a_place_may_be_of_another_kind() -> None:
    """Known before or after it is saved; but what is made again is that alone."""
    with Allocations({}) as allocations:
        weight = torch.ones(1024, requires_grad=True)
        allocations.assign("parameters", weight)
        kept = []
        for recomputes in (False, True):
            allocations.enter(made="temporaries", saved="norms", recomputes=recomputes)
            total, other, later = weight + 1, weight + 2, weight + 3
            kept.append((total * other, later))
            allocations.correct("layer inputs", total)
            allocations.correct("layer inputs", later)
            kept.append((later * later, later))
            allocations.leave()
    assert allocations.peak.kinds["layer inputs"] == 8 * KIB
    assert allocations.peak.kinds["norms"] == 4 * KIB
    assert allocations.peak.kinds["recomputed layer"] == 12 * KIB
    assert len(kept) == 4


def test_what_an_operator_allocates_for_itself_is_part_of_the_peak_alone() -> None:
    scratch = {torch.ops.aten.mul.Tensor: lambda x, y: x.nbytes}
    with Allocations(scratch) as allocations:
        x = torch.ones(1024)
        product = x * x
        assert allocations.allocated_bytes == 8 * KIB
    assert allocations.peak.allocated_bytes == 12 * KIB
    assert product.numel() == 1024
