"""Training throughput of a spec's first phase: our runtime beside transformers' LlamaForCausalLM, in one process.

    python bench/throughput.py [SPEC] [--rounds 15] [--steps 2] [--threads 2] [--out bench/results]

Both sides train the same weights on the same sequences, in fp32, with SDPA and torch's fused AdamW (the default of
transformers' own Trainer), gradients clipped, one round after the other, so that whatever else the machine does, it
does to both. transformers attends over whole sequences; ours is timed so, too (`whole sequences`), and once more with
the document masks of packed training text (`packed documents`), which transformers' side has not.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llama import transformers_llama
from time_groups import PRODUCTS, milliseconds_by_group, modules_scoped, scoped
from torch import Tensor, nn

from trainwright.compiler.pipeline import compile_spec
from trainwright.runtime.data.batches import Batch
from trainwright.runtime.evaluate.process import one_process
from trainwright.spec.load import load
from trainwright.spec.plan import PhaseStage

PACKED, WHOLE, THEIRS = "ours, packed documents", "ours, whole sequences", "transformers"
_DOCUMENT_TOKENS = 180  # mean length in PACKED, near that of the demo's shorter documents


@dataclass(frozen=True)
class Side:
    """One way to train: `step()` does one optimizer step and returns the mean loss."""

    name: str
    step: Callable[[], float]
    model: nn.Module
    group_of: Callable[[nn.Module], str | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, nargs="?", default=Path("examples/tiny.toml"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2, help="of each side in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    phase = first_phase(arguments.spec)
    with one_process():
        sides = build(phase)
        losses = {side.name: [round(side.step(), 4) for _ in range(3)] for side in sides}
        rates, cpu_rates = race(sides, arguments.rounds, arguments.steps, phase.tokens_per_step)
        groups = {side.name: profiled(side) for side in sides}
    result = {
        "machine": machine(arguments.threads),
        "versions": {name: version(name) for name in ("torch", "megatron-core", "transformers", "numpy")},
        "phase": {
            "spec": str(arguments.spec),
            "parameters": phase.model.parameters,
            "sequences": phase.sequences_per_step,
            "sequence_length": phase.sequence_length,
            "micro_batch": phase.layout.micro_batch,
            "precision": phase.precision,
        },
        "first_losses": losses,
        "tokens_per_s": {name: summary(values) for name, values in rates.items()},
        "tokens_per_cpu_s": {name: summary(values) for name, values in cpu_rates.items()},
        "ratio_to_transformers": ratios(rates),
        "cpu_ratio_to_transformers": ratios(cpu_rates),
        "milliseconds_per_step_by_group": groups,
    }
    folder = arguments.out / machine_name()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-throughput-{arguments.threads}-threads.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)
    print(f"written to {path}")


def first_phase(spec: Path) -> PhaseStage:
    """The first phase of the spec as the compiler plans it for one process."""
    plan = compile_spec(load(spec)).plan
    if plan is None:
        raise SystemExit(f"{spec} has mistakes: see `trainwright check {spec}`")
    phase = next(stage for stage in plan.stages if isinstance(stage, PhaseStage))
    if phase.layout.world_size != 1:
        raise SystemExit(f"{spec} plans {phase.layout.world_size} processes; this benchmark runs on one")
    return phase


def draw(phase: PhaseStage, documents: bool) -> Batch:
    """Random tokens of the step's shape; with `documents`, several in most sequences."""
    random = np.random.default_rng(0)
    shape = (phase.sequences_per_step, phase.sequence_length + 1)
    tokens_BS1 = random.integers(3, phase.model.vocab_size, shape)
    counts = random.poisson(shape[1] / _DOCUMENT_TOKENS, shape[0]) if documents else np.zeros(shape[0], dtype=np.int64)
    starts = [np.unique(random.integers(0, shape[1], count)) for count in counts]
    return Batch(tokens_BS1, np.zeros(shape[0], dtype=np.int64), starts)


def part(drawn: Batch, start: int, stop: int) -> Batch:
    return Batch(drawn.tokens_BS1[start:stop], drawn.sources_B[start:stop], drawn.starts[start:stop])


def build(phase: PhaseStage) -> list[Side]:
    """Every side, on the same weights and tokens."""
    from trainwright.runtime.export.names import llama, translate

    weights: dict[str, Tensor] = {}
    sides = []
    for name, documents in ((WHOLE, False), (PACKED, True)):
        side = our_side(name, phase, draw(phase, documents))
        weights = weights or {key: value.clone() for key, value in side.model.named_parameters()}
        sides.append(side)
    return [*sides, their_side(phase, dict(translate(weights, llama(phase.model))), draw(phase, False))]


def our_side(name: str, phase: PhaseStage, drawn: Batch) -> Side:
    """The runtime's own step: model, gradient buffers, optimizer and schedule as a phase uses them."""
    from trainwright.runtime.train import language, optimizer, step
    from trainwright.runtime.train.model import model_of

    (model,) = chunks = model_of(phase, seed=phase.seed)
    wrapped = optimizer.wrap(chunks, phase.layout)
    adam = optimizer.build_optimizer(wrapped, phase.optimizer, phase.layout, phase.precision)
    optimizer.set_learning_rate(adam, phase.learning_rate.peak)
    size = phase.layout.micro_batch
    adam.step = scoped("optimizer", adam.step)
    model.compute_language_model_loss = scoped("loss", model.compute_language_model_loss)

    def one() -> float:
        batches = [language.micro_batch(part(drawn, at, at + size)) for at in range(0, phase.sequences_per_step, size)]
        (loss, counted, _), _ = step.train_step(wrapped, adam, language.LanguageLoss(["drawn"]), batches)
        return float(loss / counted)

    return Side(name, one, model, our_group)


def their_side(phase: PhaseStage, weights: dict[str, Tensor], drawn: Batch) -> Side:
    """The loop that transformers' Trainer runs, without its bookkeeping."""
    model = transformers_llama(phase, weights, use_cache=False)
    plan = phase.optimizer
    adam = torch.optim.AdamW(
        model.parameters(),
        lr=phase.learning_rate.peak,
        betas=plan.betas,
        eps=plan.eps,
        weight_decay=plan.weight_decay,
        fused=True,
    )
    tokens_BS1 = torch.from_numpy(drawn.tokens_BS1)
    size = phase.layout.micro_batch
    model.loss_function = scoped("loss", model.loss_function)
    update = scoped("optimizer", lambda: (nn.utils.clip_grad_norm_(model.parameters(), plan.clip), adam.step()))

    def one() -> float:
        adam.zero_grad()
        total = 0.0
        for tokens in torch.split(tokens_BS1, size):
            labels = tokens[:, 1:].contiguous()
            loss = model(input_ids=tokens[:, :-1], labels=labels, shift_labels=labels).loss
            (loss * len(tokens) / len(tokens_BS1)).backward()
            total += float(loss.detach()) * len(tokens) / len(tokens_BS1)
        update()
        return total

    return Side(THEIRS, one, model, their_group)


def our_group(module: nn.Module) -> str | None:
    return {
        "ColumnParallelLinear": PRODUCTS,
        "RowParallelLinear": PRODUCTS,
        "CoreAttention": "attention and RoPE",
        "RmsNorm": "norm",
        "SwiGlu": "activation",
        "VocabParallelEmbedding": "embedding",
    }.get(type(module).__name__)


def their_group(module: nn.Module) -> str | None:
    return {
        "Linear": PRODUCTS,
        "LlamaAttention": "attention and RoPE",
        "LlamaRotaryEmbedding": "attention and RoPE",
        "LlamaRMSNorm": "norm",
        "LlamaMLP": "activation",
        "Embedding": "embedding",
    }.get(type(module).__name__)


Rates = dict[str, list[float]]


def race(sides: list[Side], rounds: int, steps: int, tokens_per_step: int) -> tuple[Rates, Rates]:
    """Tokens per second, and per second of processor time, of each round of each side; the order turns.

    Processor time is that of all threads. It suffers less when others use the machine, but counts a thread that
    waits for another by spinning.
    """
    rates: Rates = {side.name: [] for side in sides}
    cpu_rates: Rates = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            started, cpu_started = time.perf_counter(), time.process_time()
            for _ in range(steps):
                side.step()
            rates[side.name].append(steps * tokens_per_step / (time.perf_counter() - started))
            cpu_rates[side.name].append(steps * tokens_per_step / (time.process_time() - cpu_started))
    return rates, cpu_rates


def ratios(rates: Rates) -> dict[str, Any]:
    """Of each round, ours over transformers'."""
    return {
        name: summary([ours / theirs for ours, theirs in zip(rates[name], rates[THEIRS], strict=True)], 3)
        for name in (WHOLE, PACKED)
    }


def profiled(side: Side) -> dict[str, float]:
    with modules_scoped(side.model, side.group_of):
        side.step()
        return milliseconds_by_group(side.step, steps=5)


def summary(values: list[float], digits: int = 0) -> dict[str, Any]:
    quarters = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {
        "median": round(statistics.median(values), digits),
        "quartiles": [round(quarters[0], digits), round(quarters[2], digits)],
        "rounds": [round(value, digits) for value in values],
    }


def machine(threads: int) -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def machine_name() -> str:
    """The folder of this machine's results."""
    return f"{os.cpu_count()}-core-{platform.machine()}"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def show(result: dict[str, Any]) -> None:
    print(f"{result['machine']['processor']}, {result['machine']['threads']} threads, {result['versions']}")
    print(f"first losses: {result['first_losses']}")
    for unit, ratio in (("tokens_per_s", "ratio_to_transformers"), ("tokens_per_cpu_s", "cpu_ratio_to_transformers")):
        for name, row in result[unit].items():
            of = result[ratio].get(name)
            beside = f", {of['median']:.3f} of transformers {of['quartiles']}" if of else ""
            print(f"{name:24} {row['median']:>8,.0f} {unit} {row['quartiles']}{beside}")
    names = list(result["milliseconds_per_step_by_group"])
    print("milliseconds a step, profiled:".ljust(34) + "".join(f"{name:>26}" for name in names))
    groups = dict.fromkeys(group for name in names for group in result["milliseconds_per_step_by_group"][name])
    for group in groups:
        values = [result["milliseconds_per_step_by_group"][name].get(group, 0.0) for name in names]
        print(f"  {group:32}" + "".join(f"{value:>26.1f}" for value in values))


if __name__ == "__main__":
    main()
