"""Seconds of one micro-batch on one pipeline rank: its operators, and the exchanges that they wait for.

Exposed is what an exchange takes beyond the computation that it can hide under; the shares of that are a framework's.

per layer and micro-batch, X = bytes * tokens * h:
    tensor      forward 2 all-reduce of X, or with sequence parallelism 2 all-gather + 2 reduce-scatter; backward as
                much, and with sequence parallelism 2 all-gather more, which rebuild inputs for the weights' gradients
    context     ring: c - 1 sends of a block's keys and values, backward again and of their gradients; all-gather of
                all of them, backward again and their gradients reduce-scattered; all-to-all of q, k, v and the output
    weights     ZeRO-3 and weight parallelism: all-gather forward and backward, reduce-scatter of gradients
"""

from dataclasses import dataclass

from trainwright.compiler.cost.case import Case, Part
from trainwright.compiler.cost.framework import TimeProfile
from trainwright.compiler.cost.network import Group, Network, exposed
from trainwright.compiler.cost.numeric import Number, maximum, minimum, where
from trainwright.compiler.cost.operators import Operators, Passes, Work
from trainwright.compiler.cost.parameters import layer_parameters
from trainwright.spec.device import HardwareFile

_CALLS = 4  # kernels that launching one exchange takes as long as
_PLANNED = {"gather": "all-gather", "ring": "ring", "all_to_all": "all-to-all"}  # a layout's words in a profile's


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds by kind of work; `forward_s + backward_s` is their sum, `weight_s` a part of `backward_s`."""

    kinds: dict[str, Number]
    forward_s: Number
    backward_s: Number
    weight_s: Number

    @property
    def total_s(self) -> Number:
        return self.forward_s + self.backward_s

    def __add__(self, other: "Pace") -> "Pace":
        kinds = {kind: self.kinds.get(kind, 0.0) + other.kinds.get(kind, 0.0) for kind in self.kinds | other.kinds}
        return Pace(
            kinds, self.forward_s + other.forward_s, self.backward_s + other.backward_s, self.weight_s + other.weight_s
        )

    def __mul__(self, times: Number) -> "Pace":
        kinds = {kind: seconds * times for kind, seconds in self.kinds.items()}
        return Pace(kinds, self.forward_s * times, self.backward_s * times, self.weight_s * times)


@dataclass(frozen=True, slots=True)
class Exposed:
    """Exchanges of a layer that nothing hides."""

    tensor: Number
    context: Number


class Pacer:
    """Prices parts of one case: what is alike on all of them is worked out once."""

    def __init__(self, case: Case, hardware: HardwareFile, profile: TimeProfile) -> None:
        self.case, self.profile = case, profile
        self.operators = Operators(case, hardware, profile)
        self.network = Network(hardware, case.gpus_per_node)
        self.host_s = max(profile.dispatch_s, hardware.launch_s)
        self.layer = self._layer()
        self.embedding = self._around(self.operators.embedding(), reduced=1)
        self.head = self._around(self.operators.head(), reduced=0)

    def part(self, part: Part) -> Pace:
        """One micro-batch on a pipeline rank that holds this part, all its chunks together."""
        recomputed = self._recomputed(part)
        whole: Pace = self.layer[0] * (part.layers * (1 - recomputed)) + self.layer[1] * (part.layers * recomputed)
        whole = whole + self.embedding * part.embedding + self.head * part.head
        host = self.profile.micro_batch_s * self.case.virtual_pipeline
        return whole + Pace({"launches": host}, host / 2, host / 2, 0.0)

    def _recomputed(self, part: Part) -> Number:
        """The share of the part's layers that are recomputed."""
        case = self.case
        if case.recompute == "none":
            return 0.0
        if case.recompute_layers is None:
            return 1.0
        return minimum(1.0, case.recompute_layers * case.virtual_pipeline / maximum(part.layers, 1))

    # --- a layer -----------------------------------------------------------------------------------------------------

    def _layer(self) -> tuple[Pace, Pace]:
        """A layer without and with what recomputation repeats of it."""
        passes = self.operators.layer()
        if self.case.recompute == "none":
            plain = self._priced(passes, Work())
            return plain, plain
        return self._priced(passes, Work()), self._priced(passes, passes.recompute)

    def _priced(self, passes: Passes, recompute: Work) -> Pace:
        case, profile = self.case, self.profile
        backward = passes.backward + passes.weight
        forward_exchange, backward_exchange = self._tensor()
        if case.recompute == "full" and recompute is passes.recompute:
            backward_exchange = backward_exchange + forward_exchange
        context_forward, context_backward = self._context()
        ahead = Exposed(
            exposed(forward_exchange, passes.forward.matmul, profile.tensor_forward_overlap),
            exposed(context_forward, passes.forward.attention, profile.context_overlap),
        )
        back = Exposed(
            exposed(backward_exchange, (backward + recompute).matmul, profile.tensor_backward_overlap),
            exposed(context_backward, passes.backward.attention, profile.context_overlap),
        )
        forward_s = passes.forward.total + ahead.tensor + ahead.context
        backward_s = backward.total + recompute.total + back.tensor + back.context
        calls = where(case.tensor > 1, _CALLS * where(case.sequence_parallel, 4, 2), 0)
        repeated = 1 + (case.recompute == "full") * (recompute is passes.recompute)
        forward_launch = maximum(0.0, (passes.forward.kernels + calls) * self.host_s - forward_s)
        launched = backward.kernels + recompute.kernels + repeated * calls
        backward_launch = maximum(0.0, launched * self.host_s - backward_s)
        forward_s, backward_s = forward_s + forward_launch, backward_s + backward_launch
        gather, scatter = self._weights()
        forward_gather = exposed(gather, forward_s, profile.weight_overlap)
        backward_gather = exposed(gather + scatter, backward_s, profile.weight_overlap)
        both = passes.forward + backward
        kinds = {
            "matmul": both.matmul,
            "attention": both.attention,
            "elementwise": both.elementwise,
            "recompute": recompute.total,
            "launches": forward_launch + backward_launch,
            "tensor exchange": ahead.tensor + back.tensor,
            "context exchange": ahead.context + back.context,
            "weight gather": forward_gather + backward_gather,
        }
        return Pace(kinds, forward_s + forward_gather, backward_s + backward_gather, passes.weight.total)

    def _around(self, passes: Passes, reduced: int) -> Pace:
        """The embedding or the head; the tensor ranks' sums meet `reduced` times."""
        case = self.case
        size = self.operators.bytes * self.operators.tokens * case.model.hidden_size
        exchange = reduced * self.network.all_reduce(size, Group(case.tensor))
        backward = passes.backward + passes.weight
        both = passes.forward + backward
        kinds = {"matmul": both.matmul, "elementwise": both.elementwise, "tensor exchange": exchange}
        return Pace(kinds, passes.forward.total + exchange, backward.total, passes.weight.total)

    # --- exchanges of a layer ----------------------------------------------------------------------------------------

    def _tensor(self) -> tuple[Number, Number]:
        case = self.case
        size = self.operators.bytes * self.operators.tokens * case.model.hidden_size
        group = Group(case.tensor)
        gathered, reduced = self.network.all_gather(size, group), self.network.all_reduce(size, group)
        forward = where(case.sequence_parallel, 4 * gathered, 2 * reduced)
        return forward, where(case.sequence_parallel, 6 * gathered, 2 * reduced)

    def _context(self) -> tuple[Number, Number]:
        """Heads for tokens among neighbours, then keys and values between groups of them."""
        case, model, network = self.case, self.case.model, self.network
        planned = self.profile.context_by == "planned"
        by = _PLANNED[case.context_exchange] if planned else self.profile.context_by
        near = case.head_ranks if planned else case.context if by == "all-to-all" else 1
        group = Group(near, case.tensor)
        token = self.operators.bytes * self.operators.tokens * model.head_size / case.tensor
        keys = where(near > 1, maximum(model.kv_heads, near * case.tensor), model.kv_heads)  # of too few some go twice
        swap = sum(network.all_to_all(token * heads, group) for heads in (model.heads, keys) * 2)
        if by == "all-to-all":
            return swap, swap
        far = case.context // near
        group = Group(far, case.tensor * near)
        block = 2 * token * keys
        gradient = block * (self.profile.context_gradient_bytes or self.operators.bytes) / self.operators.bytes
        if by == "all-gather":
            gathered = network.all_gather(block * far, group)
            return swap + gathered, swap + gathered + network.all_gather(gradient * far, group)
        _, nodes = network.nodes(group)
        distance = where(nodes > 1, network.per_node, group.stride)
        forward, back = ((far - 1) * network.send(size, distance) for size in (block, gradient))
        return swap + where(far > 1, forward, 0.0), swap + where(far > 1, forward + back, 0.0)

    def _weights(self) -> tuple[Number, Number]:
        """All-gather of a layer's weights, and reduce-scatter of their gradients, where they are cut."""
        case = self.case
        layer = layer_parameters(case.model, case.tensor)
        group = Group(case.optimizer_shards, case.tensor) if case.zero == 3 else Group(case.weight)
        gather = self.network.all_gather(self.operators.bytes * layer, group)
        return gather, self.network.all_gather(self.profile.reduce_bytes * layer, group)
