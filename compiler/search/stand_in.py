"""Rough prices until those of `compiler/cost/` are there."""

from typing import Any

from trainwright.compiler.cost.case import Case, Part, even_part
from trainwright.compiler.cost.numeric import maximum, minimum, where
from trainwright.spec.device import HardwareFile
from trainwright.spec.plan import RankMemory, StepTime

Number = Any


def _terms(case: Case, part: Part) -> dict[str, Number]:
    m = case.model
    layer = m.hidden_size * (2 * m.head_size * (m.heads + m.kv_heads) + 3 * m.ffn_size)
    held = (part.layers * layer + (part.embedding + part.head) * m.vocab_size * m.hidden_size) / case.tensor
    t1 = where(case.sequence_parallel, case.tensor, 1)
    kept = 8 * m.hidden_size / t1 + (6 * m.hidden_size + 6 * m.ffn_size) / case.tensor
    if case.recompute == "full":
        kept = 2 * m.hidden_size / t1
    flight = minimum(case.micro_batches, case.pipeline - part.pipeline_rank)
    flight = flight * (1 + (case.virtual_pipeline > 1) * (case.pipeline - 1) / (case.pipeline * case.virtual_pipeline))
    return {
        "parameters_bytes": 2 * held / (case.zero_group * case.context if case.zero == 3 else 1),
        "gradients_bytes": 4 * held / (case.zero_group * case.context if case.zero >= 2 else 1),
        "optimizer_bytes": 12 * held / case.optimizer_shards,
        "activations_bytes": part.layers * flight * kept * case.local_tokens,
        "logits_bytes": part.head * 6 * case.local_tokens * m.vocab_size / case.tensor,
    }


def peak_bytes(case: Case) -> Number:
    ranks = [_terms(case, even_part(case, rank)) for rank in (0, case.pipeline - 1)]
    return maximum(*(sum(terms.values()) for terms in ranks))


def rank_memories(case: Case) -> tuple[RankMemory, ...]:
    found = []
    for rank in range(case.pipeline):
        terms = {key: int(value) for key, value in _terms(case, even_part(case, rank)).items()}
        found.append(
            RankMemory(
                pipeline_rank=rank,
                **terms,
                activations={"layers": terms["activations_bytes"]},
                communication_bytes=0,
                temporaries_bytes=0,
                framework_bytes=0,
                total_bytes=sum(terms.values()),
                peak="the first backward pass",
                binds=max(terms, key=lambda key: terms[key]).removesuffix("_bytes"),
            )
        )
    return tuple(found)


def _parts(case: Case, device: HardwareFile) -> dict[str, Number]:
    m = case.model
    layer = m.hidden_size * (2 * m.head_size * (m.heads + m.kv_heads) + 3 * m.ffn_size)
    flops = 6 * (m.layers * layer + m.vocab_size * m.hidden_size) + 6 * m.layers * m.hidden_size * case.sequence_length
    flops = flops * {"none": 1.0, "selective": 1.1, "full": 1.33}[case.recompute]
    rate = 0.5 * (device.peak_flops.bf16 or 1e14) * case.local_tokens / (case.local_tokens + 500)
    busy = flops * case.tokens_per_step / case.world_size / rate
    wire = 2 * 4 * m.hidden_size * case.local_tokens * m.layers / case.pipeline * case.micro_batches
    return {
        "compute": busy,
        "bubble": busy * (case.pipeline - 1) / (case.virtual_pipeline * case.micro_batches),
        "tensor": where(case.tensor > 1, wire * (1 + 0.2 * (1 - 1.0 * case.sequence_parallel)) / 1.2e11, 0.0),
        "optimizer": 30 * m.layers * layer / case.tensor / case.pipeline / case.optimizer_shards / 1e12,
        "data": 6 * m.layers * layer / case.tensor / case.pipeline / 1e10 * (case.data > 1),
    }


def quick_step_time(case: Case, device: HardwareFile) -> Number:
    return sum(_parts(case, device).values())


def step_time(case: Case, parts: tuple[Part, ...], device: HardwareFile) -> StepTime:
    found = {key: float(value) for key, value in _parts(case, device).items()}
    total = sum(found.values())
    return StepTime(
        time_s=total,
        low_s=total * 0.9,
        high_s=total * 1.1,
        parts=found,
        chunks=(),
        transfer_s=0.0,
        bubble=found["bubble"] / total,
    )
