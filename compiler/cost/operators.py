"""Seconds of the operators of a decoder on one rank, for one micro-batch: products, attention, and all between them.

A product m x k x n takes max(2mkn / (peak * share), bytes / bandwidth); the share of the peak depends on the GFLOP of
the product. What lies between products (norms, residual sums, RoPE, activation, loss) moves bytes: they are counted
for kernels that are fused as far as can be, in copies of h, q + 2k and f, and a framework multiplies them.

Attention with FlashAttention: 4*d*a*s*s/2 FLOPs of the causal half forward and 2.5 times that backward (its backward
pass forms the scores anew: five products for two, Dao 2023, arXiv 2307.08691). Attention that stores its scores: two
products of the whole square, and the square is read and written by softmax and dropout between them.

Letters: h hidden size, q and k query and key-value heads times head size, f MLP width, V vocabulary, n tokens of a
micro-batch on this rank, t tensor ranks, t1 = t with sequence parallelism, else 1.
"""

from dataclasses import dataclass, fields

from trainwright.compiler.cost.case import Case
from trainwright.compiler.cost.framework import TimeProfile, memory_profile
from trainwright.compiler.cost.loss_memory import loss_piece_tokens
from trainwright.compiler.cost.numeric import Number, ceil_divide, interpolate, maximum, minimum, where
from trainwright.compiler.cost.parameters import layer_parameters
from trainwright.spec.device import HardwareFile

# Tensor cores read 128 bytes at a time: widths of no multiple of 64 elements cost. Below 8 elements (16 bytes) there is
# no use of them at all: plain 16-bit units have a quarter of the peak, and reach half of it.
_ALIGNED_64, _ALIGNED_8, _UNALIGNED = 1.0, 0.75, 0.12
# A product's loop over k takes some steps to fill; half of its own traffic is not hidden by computing. Fitted to
# tables of kernels on A100 and B200, see bench/fit_efficiency.py.
_FILL, _BESIDE = 32, 0.5
_UNCACHED = 0.7  # of the bytes of stored scores; the rest is found in the cache. Fitted with the same script
_HOPPER_FLOPS = 5e14  # bf16: faster devices have asynchronous units
_HEAD_FORWARD = 0.6  # of the bytes moved around the loss: cast to fp32, maximum, sum, loss; backward its gradient


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds by kind of operator, and how many kernels they are."""

    matmul: Number = 0.0
    attention: Number = 0.0
    elementwise: Number = 0.0
    kernels: Number = 0.0

    @property
    def total(self) -> Number:
        return self.matmul + self.attention + self.elementwise

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __mul__(self, times: Number) -> "Work":
        return Work(*(getattr(self, each.name) * times for each in fields(self)))


@dataclass(frozen=True, slots=True)
class Passes:
    """The work of one micro-batch: `backward` is what the pass before needs, `weight` the weights' gradients."""

    forward: Work
    backward: Work
    weight: Work
    recompute: Work = Work()


class Operators:
    """The operators of one case on one kind of device, by one framework."""

    def __init__(self, case: Case, hardware: HardwareFile, profile: TimeProfile) -> None:
        self.case, self.hardware, self.profile = case, hardware, profile
        peak = hardware.peak(case.precision)
        half = hardware.peak("bf16") if case.precision == "fp8" else peak
        if peak is None or half is None or hardware.memory_bytes_per_s is None:
            raise ValueError(f"`{hardware.name}` has no peak in {case.precision}, or no memory bandwidth")
        self.peak, self.half_peak, self.bandwidth = peak, half, hardware.memory_bytes_per_s
        self.unfused = profile.traffic
        if case.precision == "fp32" and profile.traffic_fp32 is not None:
            self.unfused = profile.traffic_fp32
        self.bytes = 4 if case.precision == "fp32" else 2
        self.tokens = case.local_tokens
        self.norm_shards = where(case.sequence_parallel, case.tensor, 1)

    # --- kernels -----------------------------------------------------------------------------------------------------

    def product(self, m: Number, k: Number, n: Number) -> Number:
        """Seconds of one product of m x k by k x n, in the precision of the run."""
        fp8 = self.case.precision == "fp8"
        efficiency = self.hardware.efficiency
        curve = efficiency.matmul_fp8 if fp8 and efficiency.matmul_fp8 else efficiency.matmul
        flops = 2 * m * k * n
        share = interpolate(flops / 1e9, curve) * minimum(_alignment(k), _alignment(n))
        moved = (1 if fp8 else self.bytes) * (m * k + k * n) + self.bytes * m * n
        cast = self.profile.fp8_traffic * m * k / self.bandwidth if fp8 else 0.0
        return flops / (self.peak * share) * (1 + _FILL / k) + _BESIDE * moved / self.bandwidth + cast

    def traffic(self, moved_bytes: Number, kernels: Number) -> Number:
        """Seconds in which so many kernels move so many bytes in all."""
        each = maximum(moved_bytes / maximum(kernels, 1) / 2**20, 1e-9)
        return moved_bytes / (self.bandwidth * interpolate(each, self.hardware.efficiency.memory))

    # --- a layer -----------------------------------------------------------------------------------------------------

    def layer(self) -> Passes:
        """One layer; what recomputation repeats of it in the backward pass of each layer that is recomputed."""
        case, model, profile = self.case, self.case.model, self.profile
        attention_forward, attention_backward = self._attention()
        products = self._products()
        matmul = sum(self.product(m, k, n) for m, k, n in products)
        data = sum(self.product(m, n, k) for m, k, n in products)
        weights = sum(self.product(k, m, n) for m, k, n in products)
        norms, inner = self._between()
        accumulated = layer_parameters(model, case.tensor) / case.weight * profile.accumulate_bytes
        few = profile.forward_kernels - len(products) - 1
        forward = Work(
            matmul=matmul, elementwise=self.traffic(norms[0] + inner[0], few), kernels=profile.forward_kernels
        )
        backward = Work(
            matmul=data, elementwise=self.traffic(norms[1] + inner[1], few), kernels=profile.backward_kernels
        )
        weight = Work(matmul=weights, elementwise=self.traffic(accumulated, len(products)))
        recompute = Work()
        if case.recompute == "full":
            recompute = forward + attention_forward
        elif case.recompute == "selective":
            if "core_attention" in case.recompute_modules:
                recompute = recompute + attention_forward
            if "norm" in case.recompute_modules:
                recompute = recompute + Work(elementwise=self.traffic(0.4 * norms[0], 2), kernels=2)
            if "activation" in case.recompute_modules and "mlp" not in case.recompute_modules:
                recompute = recompute + Work(elementwise=self.traffic(inner[0], 1), kernels=1)
            if "mlp" in case.recompute_modules:
                mlp = sum(self.product(m, k, n) for m, k, n in products[2:])
                recompute = recompute + Work(matmul=mlp, elementwise=self.traffic(inner[0], 1), kernels=3)
        return Passes(forward + attention_forward, backward + attention_backward, weight, recompute)

    def _products(self) -> tuple[tuple[Number, Number, Number], ...]:
        case, model, n = self.case, self.case.model, self.tokens
        t = case.tensor
        width, kv = model.heads * model.head_size, model.kv_heads * model.head_size
        gates = 2 if model.gated else 1
        return (
            (n, model.hidden_size, (width + 2 * kv) / t),
            (n, width / t, model.hidden_size),
            (n, model.hidden_size, gates * model.ffn_size / t),
            (n, model.ffn_size / t, model.hidden_size),
        )

    def _between(self) -> tuple[tuple[Number, Number], tuple[Number, Number]]:
        """Bytes moved around norms and residual sums, and by RoPE and the activation; forward and backward.

        Forward: a norm reads and writes h, a residual sum reads two and writes one: 10h for two of each. Backward: 6h
        for two norms and 6h for the sums. RoPE reads and writes q + k. A gated activation reads 2f and writes f, and
        backward reads 3f and writes 2f; a plain one 2f and 3f.
        """
        case, model = self.case, self.case.model
        scale = self.bytes * self.tokens * self.unfused
        hidden = model.hidden_size * scale / self.norm_shards
        masks = 0.5 * 2 if model.dropout else 0
        rotated = 2 * (model.heads + model.kv_heads) * model.head_size if model.gated else 0
        f = model.ffn_size
        split = scale / case.tensor
        norms = ((10 + masks) * hidden, (12 + masks) * hidden)
        return norms, (
            (rotated + (3 if model.gated else 2) * f) * split,
            (rotated + (5 if model.gated else 3) * f) * split,
        )

    def _attention(self) -> tuple[Work, Work]:
        case, model = self.case, self.case.model
        heads = model.heads / case.tensor
        queries = case.micro_batch * case.sequence_length / case.context * heads
        if model.stored_scores:
            scores = queries * case.sequence_length
            flops = 4 * model.head_size * scores
            # Each score is the product of only head_size numbers: a tile of tensor cores is hardly filled.
            narrow = model.head_size / (model.head_size + 64) * _alignment(model.head_size)
            share = interpolate(flops / 2e9, self.hardware.efficiency.matmul) * narrow
            products = flops / (self.half_peak * share)
            drop = (2 * self.bytes + 1) if model.dropout else 0
            forward = Work(
                attention=products + self.traffic(_UNCACHED * (4 * self.bytes + drop) * scores, 5), kernels=6
            )
            backward = Work(
                attention=2 * products + self.traffic(_UNCACHED * (7 * self.bytes + drop) * scores, 7), kernels=8
            )
            return forward, backward
        seen = (
            case.sequence_length
            if case.document_length is None
            else minimum(case.sequence_length, case.document_length)
        )
        flops = 4 * model.head_size * queries * seen / 2
        efficiency = self.hardware.efficiency
        # The softmax costs the same for narrow heads, whose products are smaller.
        narrow = minimum(1.0, 1.25 * model.head_size / (model.head_size + 32)) * self._kernel()
        forward_s = flops / (self.half_peak * interpolate(flops / 1e9, efficiency.attention_forward) * narrow)
        flops = 2.5 * flops
        backward_s = flops / (self.half_peak * interpolate(flops / 1e9, efficiency.attention_backward) * narrow)
        return Work(attention=forward_s, kernels=1), Work(attention=backward_s, kernels=2)

    def _kernel(self) -> float:
        """How fast the framework's attention is on this device."""
        hopper = (self.hardware.peak_flops.bf16 or 0.0) > _HOPPER_FLOPS
        return self.profile.attention_hopper if hopper else self.profile.attention

    # --- what lies around the layers ---------------------------------------------------------------------------------

    def embedding(self) -> Passes:
        """A lookup, and adding its gradient up: bytes alone."""
        moved = self.bytes * self.tokens * self.case.model.hidden_size
        forward = Work(elementwise=self.traffic(2 * moved, 1), kernels=2)
        return Passes(forward, Work(), Work(elementwise=self.traffic(4 * moved, 1), kernels=2))

    def head(self) -> Passes:
        """The last norm, the logits and their loss. The fused loss makes its logits again in the backward pass.

        It adds to its weight's gradient piece by piece.
        """
        case, model, profile = self.case, self.case.model, self.profile
        vocabulary = model.vocab_size / case.tensor
        loss = self.tokens * vocabulary * profile.head_bytes
        norm = self.bytes * self.tokens * model.hidden_size * self.unfused / self.norm_shards
        product = self._plain(vocabulary)
        pieces = ceil_divide(self.tokens, loss_piece_tokens(case, memory_profile(case)))
        times = where(case.fused_loss, pieces, 1)
        accumulated = times * model.hidden_size * vocabulary * profile.accumulate_bytes
        again = where(case.fused_loss, product, 0.0)
        return Passes(
            Work(product, 0.0, self.traffic(_HEAD_FORWARD * loss + 2 * norm, 4), 8),
            Work(product + again, 0.0, self.traffic((1 - _HEAD_FORWARD) * loss + 3 * norm, 4), 8),
            Work(product, 0.0, self.traffic(accumulated, times), 1),
        )

    def _plain(self, vocabulary: Number) -> Number:
        """The head's product, in 16 bits in an fp8 run too."""
        flops = 2 * self.tokens * self.case.model.hidden_size * vocabulary
        return flops / (self.half_peak * interpolate(flops / 1e9, self.hardware.efficiency.matmul))


def _alignment(width: Number) -> Number:
    eight = where(width % 8 == 0, _ALIGNED_8, _UNALIGNED)
    return where(width % 64 == 0, _ALIGNED_64, eight)
