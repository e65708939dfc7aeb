"""Published training runs as cases to be priced. `python bench/published.py [FILE]` counts what can be used.

A row becomes a `Case` by what the row itself says; what its source documents elsewhere is in `published_sources.py`,
each with where. What nobody says is assumed and listed in `Row.assumed`: such rows are predicted but stay out of
headlines.
"""

import argparse
import csv
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from published_sources import (
    DEEPSPEED_ZERO_BYTES,
    FRAMEWORKS,
    FULL_ATTENTION,
    HARDWARE,
    MEGATRON_GPT,
    MIXTURES,
    NETWORK,
    PRECISIONS,
    STORED_SCORES,
    TIED,
    VOCABULARY_WAITS,
)

from trainwright.compiler.cost.case import Case, ModelShape, Part, RecomputeModule, even_part
from trainwright.spec.device import HardwareFile, Link, load_hardware

PUBLISHED = Path(__file__).parent / "published"


@dataclass(frozen=True)
class Row:
    """One row. `case` is None where it cannot be priced, and `why_not` says why."""

    row_id: str
    source: str
    tier: str
    status: str
    values: dict[str, str] = field(repr=False)
    case: Case | None
    parts: tuple[Part, ...]
    why_not: str
    assumed: tuple[str, ...]
    hardware_name: str
    hardware: HardwareFile | None
    overrides: dict[str, object]  # what the notes say of overlap and fusion, as keys of a framework's `[time]`
    step_time_s: float | None
    time_from: str  # "printed", "tokens/s" or "mfu"
    memory_gb: float | None
    mem_kind: str

    @property
    def out_of_memory(self) -> bool:
        return self.status.upper().startswith("OOM")

    @property
    def half_precision(self) -> bool:
        return self.case is not None and self.case.precision in ("bf16", "fp16")


class _Unusable(Exception):
    """Why a row cannot be priced."""


def rows(path: Path = PUBLISHED / "training.csv") -> list[Row]:
    """Every row of a file with the columns of `published/training.csv`."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_row(values) for values in csv.DictReader(file)]


def _row(values: dict[str, str]) -> Row:
    values = {name: (value or "").strip() for name, value in values.items() if name}
    assumed: list[str] = []
    case: Case | None = None
    parts: tuple[Part, ...] = ()
    why_not = ""
    name = HARDWARE.get(values.get("gpu_type", ""), "")
    try:
        case = _case(values, assumed)
        parts = _parts(values, case)
    except _Unusable as error:
        why_not = str(error)
    hardware = _hardware(values, name)
    if not why_not and hardware is None:
        why_not = f"nothing is known of the device `{values.get('gpu_type', '')}`"
    step, origin = _step_time(values, case, hardware)
    return Row(
        row_id=values.get("row_id", ""),
        source=values.get("source", ""),
        tier=values.get("tier", ""),
        status=values.get("status", "") or "ok",
        values=values,
        case=None if why_not else case,
        parts=parts,
        why_not=why_not,
        assumed=tuple(assumed),
        hardware_name=name,
        hardware=hardware,
        overrides=_overrides(values),
        step_time_s=step,
        time_from=origin,
        memory_gb=_number(values, "memory_gb"),
        mem_kind=values.get("mem_kind", ""),
    )


# --- values ----------------------------------------------------------------------------------------------------------


def _number(values: dict[str, str], name: str) -> float | None:
    """A positive number, None if there is none."""
    try:
        number = float(values.get(name) or "nan")
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def _whole(values: dict[str, str], name: str) -> int | None:
    number = _number(values, name)
    return None if number is None or number < 1 else int(number)


def _needed(values: dict[str, str], name: str) -> int:
    number = _whole(values, name)
    if number is None:
        raise _Unusable(f"`{name}` is not stated")
    return number


def _is_of(values: dict[str, str], sources: tuple[str, ...]) -> bool:
    return any(name in values.get("source", "") for name in sources)


def _case(values: dict[str, str], assumed: list[str]) -> Case:
    if (_whole(values, "ep") or 1) > 1 or MIXTURES.search(values.get("model", "")):
        raise _Unusable("a mixture of experts: not covered")
    precision = values.get("precision", "")
    if "fp4" in precision:
        raise _Unusable("fp4: not covered")
    if values.get("framework") == "MegaScale":
        raise _Unusable("the model is changed: parallel blocks, sliding windows")
    if "TPU" in values.get("gpu_type", "") or not values.get("gpu_type"):
        raise _Unusable("no GPU, or it is not stated")
    model = _model(values, assumed)
    gpus = _needed(values, "gpus")
    tensor, pipeline, context = (
        _needed(values, axis) if axis != "cp" else _whole(values, axis) or 1 for axis in ("tp", "pp", "cp")
    )
    if pipeline > model.layers:
        raise _Unusable("more pipeline ranks than layers")
    if gpus % (tensor * pipeline * context):
        raise _Unusable("the layout does not fill its GPUs")
    data = gpus // (tensor * pipeline * context)
    stated = _whole(values, "dp")
    if stated and stated != data and "MaxText" not in values.get("framework", ""):
        raise _Unusable("the printed layout contradicts its number of GPUs")
    micro_batch, micro_batches = _batches(values, data, assumed)
    zero, group = _sharding(values, data)
    recompute, modules, layers = _recompute(values, model)
    if values.get("recompute", "") == "" and zero == 3 and "MaxText" not in values.get("framework", ""):
        assumed.append("no recomputation")
    chunks = _whole(values, "vpp") or 1
    parallel = values.get("sequence_parallel", "")
    notes = values.get("notes", "")
    framework = next(name for start, name in FRAMEWORKS if values.get("framework", "").startswith(start))
    if _is_of(values, STORED_SCORES):
        framework = "megatron-deepspeed"
    return Case(
        model=model,
        sequence_length=_needed(values, "seq_len"),
        precision="fp8"
        if "fp8" in precision
        else PRECISIONS.get(precision, "fp16" if values["gpu_type"].startswith("V100") else "bf16"),  # type: ignore[arg-type]
        tensor=tensor,
        pipeline=pipeline,
        virtual_pipeline=chunks,
        context=context,
        data=data,
        sequence_parallel=tensor > 1
        and (parallel == "true" if parallel else framework not in ("internevo", "megatron-deepspeed")),
        zero=zero,
        zero_group=group,
        micro_batch=micro_batch,
        micro_batches=micro_batches,
        schedule=_schedule(values, pipeline, chunks),
        recompute=recompute,  # type: ignore[arg-type]
        recompute_modules=modules,
        recompute_layers=layers,
        context_exchange="all_to_all" if "cp=a2a" in notes else "ring",
        waiting=VOCABULARY_WAITS.get(_vocabulary(values), 0) / chunks,
        loss_in_place="fused cross-entropy" in notes,
        framework=framework,
        gpus_per_node=_whole(values, "gpus_per_node") or 8,
    )


def _model(values: dict[str, str], assumed: list[str]) -> ModelShape:
    layers, hidden = _needed(values, "layers"), _needed(values, "hidden")
    heads = _whole(values, "heads")
    if heads is None:
        heads = max(1, round(hidden / 128))
        assumed.append("heads of 128")
    ffn = _whole(values, "ffn_hidden")
    if ffn is None:
        if not values.get("model", "").startswith("gpt"):
            raise _Unusable("`ffn_hidden` is not stated")
        ffn = 4 * hidden  # as every GPT
    vocabulary = _whole(values, "vocab")
    if vocabulary is None:
        if not values.get("model", "").startswith("gpt"):
            raise _Unusable("`vocab` is not stated")
        vocabulary = 51_200  # GPT-2's, padded as Megatron does
    notes = values.get("notes", "")
    untied = "untied" in notes or values.get("mlp") == "swiglu" or "nemotron" in values.get("model", "")
    small = "tied embeddings for ffn<10000" in notes and ffn < 10_000
    old = _is_of(values, STORED_SCORES)
    gpt = _is_of(values, MEGATRON_GPT) and values.get("mlp") != "swiglu" and "position=rope" not in notes
    if gpt and vocabulary % 128:  # Megatron pads it
        padding = 128 * (_whole(values, "tp") or 1)
        vocabulary = -(-vocabulary // padding) * padding
    return ModelShape(
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=_whole(values, "kv_heads") or heads,
        head_size=max(1, hidden // heads),
        ffn_size=ffn,
        vocab_size=vocabulary,
        gated=values.get("mlp") == "swiglu",
        tied=small or "; tied" in notes or (not untied and _is_of(values, TIED)),
        bias=old or gpt or "internlm-7b" in values.get("model", ""),
        dropout=gpt or (old and "BLOOM" not in values.get("source", "")),
        stored_scores="attn unfused" in notes or (old and values.get("framework", "") != "Megatron-Core r0.8.0"),
        learned_positions=_needed(values, "seq_len") if gpt else 0,
    )


def _batches(values: dict[str, str], data: int, assumed: list[str]) -> tuple[int, int]:
    micro = _whole(values, "micro_batch")
    if micro is None:
        micro = 1
        assumed.append("micro-batches of 1")
    batch = _whole(values, "global_batch")
    accumulated = re.search(r"micro_num=(\d+)", values.get("notes", ""))
    if batch is None and accumulated:
        return micro, int(accumulated[1])
    if batch is None:
        raise _Unusable("`global_batch` is not stated")
    if values.get("framework") == "torchtitan" and (_whole(values, "pp") or 1) > 1:
        micro = 1  # the column has a rank's whole batch, which the schedule cuts
        assumed.append("micro-batches of 1")
    if batch < data * micro:
        raise _Unusable("the batch is smaller than one micro-batch a rank")
    return micro, round(batch / (data * micro))


def _sharding(values: dict[str, str], data: int) -> tuple[int, int]:
    """ZeRO's stage and group. Unstated: none for Megatron of 2021 and 2022, else the distributed optimizer."""
    text = values.get("zero_stage_sharding", "")
    unstated = 0 if _is_of(values, ("vTrain", "Jan-2021", "SC21", "Korthikanti", "GPT-3 example")) else 1
    if "zero2-like" in text:
        stage = 2
    else:
        said = re.match(r"zero(\d)", text)
        stage = int(said[1]) if said else unstated if text == "" else 0
    group = re.fullmatch(r".*:(\d+)", text)
    size = int(group[1]) if group else data
    return stage, min(size, data) if stage else 1


def _recompute(values: dict[str, str], model: ModelShape) -> tuple[str, tuple[RecomputeModule, ...], int | None]:
    text = values.get("recompute", "")
    if text == "full":
        return "full", (), None
    if text.startswith(("selective_op", "selective_layer")):
        return "full", (), max(1, model.layers // 2)  # every second product, or every second layer
    if text.startswith("selective"):
        return "selective", ("core_attention",), None
    if text == "" and _is_of(values, ("SC21", "Jan-2021", "GPT-3 example")):
        return "full", (), None  # what their FLOP counts say
    if text == "" and "MaxText" in values.get("framework", ""):
        return "full", (), None  # dgxc: its 70B at this batch fits no other way
    return "none", ("core_attention",), None


def _schedule(values: dict[str, str], pipeline: int, chunks: int) -> str:
    said = re.search(r"schedule=([\w-]+)", values.get("notes", ""), re.I)
    word = said[1].lower() if said else ""
    if pipeline == 1:
        return "1f1b"
    for name in ("v-half", "v-min", "zbv", "zb-2p", "zb-1p"):
        if name in word:
            return name
    return "interleaved" if chunks > 1 else "1f1b"


def _vocabulary(values: dict[str, str]) -> str:
    """How the paper on vocabulary parallelism placed it: Baseline, Redis, Vocab-1, Vocab-2; empty for other rows."""
    said = re.search(r"(?:method=|schedule=V-Half )([\w-]+)", values.get("notes", ""))
    return said[1].capitalize() if said else ""


def _parts(values: dict[str, str], case: Case) -> tuple[Part, ...]:
    """Even, but for the paper on vocabulary parallelism, which deals layers or the vocabulary out anew."""
    ranks = int(case.pipeline)
    method = _vocabulary(values)
    if method.startswith("Vocab"):
        return tuple(Part(rank, case.model.layers / ranks, 1 / ranks, 1 / ranks) for rank in range(ranks))
    if method == "Redis" or case.framework == "nanotron":  # nanotron: get_block_compute_costs
        model = case.model
        matrices = 2 * (model.heads + model.kv_heads) * model.head_size + (3 if model.gated else 2) * model.ffn_size
        layer = matrices + case.sequence_length  # in units of 2h FLOPs a token
        head = model.vocab_size / layer
        layers = [0] * ranks
        for _ in range(model.layers):
            loads = [count + (head if rank == ranks - 1 else 0) for rank, count in enumerate(layers)]
            # Of equal ranks the latest: the table's memory, which the first rank decides, does not change.
            layers[min(range(ranks), key=lambda rank: (loads[rank], -rank))] += 1
        return tuple(Part(rank, count, rank == 0, rank == ranks - 1) for rank, count in enumerate(layers))
    if case.model.layers % ranks and (case.model.layers + 2) % ranks == 0:
        # The embedding and the head count as a layer each: NeMo's account_for_embedding_in_pipeline_split and its like
        # for the loss; the zero-bubble paper takes a layer off both ends.
        own = (case.model.layers + 2) // ranks
        return tuple(
            Part(rank, own - (rank == 0) - (rank == ranks - 1), rank == 0, rank == ranks - 1) for rank in range(ranks)
        )
    return tuple(even_part(case, rank) for rank in range(ranks))


def _hardware(values: dict[str, str], name: str) -> HardwareFile | None:
    hardware = load_hardware(name, PUBLISHED) if name else None
    if hardware is None:
        return None
    for source, bytes_per_s in NETWORK.items():
        if source in values.get("source", ""):
            network = msgspec.structs.replace(hardware.links.network or Link(bytes_per_s), bytes_per_s=bytes_per_s)
            hardware = msgspec.structs.replace(hardware, links=msgspec.structs.replace(hardware.links, network=network))
    return hardware


def _overrides(values: dict[str, str]) -> dict[str, object]:
    notes = values.get("notes", "")
    overrides: dict[str, object] = {}
    if values.get("framework", "").startswith("Megatron-LM"):  # its switches are off unless somebody says so
        overrides = {"tensor_forward_overlap": 0.0, "gather_overlap": 0.0, "pipeline_overlap": False}
    if "NO comm overlap" in notes:
        overrides |= dict.fromkeys(("tensor_forward_overlap", "tensor_backward_overlap", "context_overlap"), 0.0)
        overrides["pipeline_overlap"] = False
    if "cp=a2a" in notes:
        overrides["context_by"] = "all-to-all"
    if "async tp" in notes.lower() or "asynctp" in notes.lower():
        overrides |= {"tensor_forward_overlap": 0.5, "tensor_backward_overlap": 0.5}
    if "BLOOM" in values.get("source", ""):
        overrides["accumulate_bytes"] = DEEPSPEED_ZERO_BYTES
    if "no compile" in notes:
        overrides |= {"traffic": 2.5, "forward_kernels": 40, "backward_kernels": 70}
    return overrides


def _step_time(values: dict[str, str], case: Case | None, hardware: HardwareFile | None) -> tuple[float | None, str]:
    printed = _number(values, "step_time_s")
    if printed:
        return printed, "printed"
    derived = _number(values, "derived_step_time_s")
    if derived:
        return derived, "tokens/s"
    mfu = _number(values, "mfu_percent")
    if case is None or hardware is None or not mfu or not any(name in values["source"] for name in FULL_ATTENTION):
        return None, ""
    model = case.model
    matrices = 2 * model.heads + 2 * model.kv_heads
    layer = model.hidden_size * (matrices * model.head_size + (3 if model.gated else 2) * model.ffn_size)
    per_token = 6 * (model.layers * layer + model.vocab_size * model.hidden_size)
    per_token += 12 * model.layers * model.hidden_size * case.sequence_length
    peak = _number(values, "peak_tflops_for_mfu")
    speed = mfu / 100 * (peak * 1e12 if peak else hardware.peak("bf16") or 0.0)
    tflops = _number(values, "measured_tflops_per_gpu")
    if tflops:
        speed = tflops * 1e12
    return per_token * case.tokens_per_step / (case.world_size * speed), "mfu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=PUBLISHED / "training.csv")
    found = rows(parser.parse_args().file)
    usable = [row for row in found if row.case is not None]
    timed = sum(row.step_time_s is not None for row in usable)
    print(f"{len(usable)} of {len(found)} rows can be priced, {timed} have a time")
    for why, count in Counter(row.why_not for row in found if row.why_not).most_common():
        print(f"{count:6} {why}")
    for what, count in Counter(what for row in usable for what in row.assumed).most_common():
        print(f"{count:6} assumed: {what}")


if __name__ == "__main__":
    main()
