"""Where an iteration of PPO spends its time: the model of a spec's first phase as actor, critic, reference and reward.

    python bench/ppo_iteration.py [SPEC] [--queries 64] [--prompt 32] [--new 64] [--iterations 7] [--threads 1]

One process, random weights, random queries in whole rows of prompt and answer, the spec's text for the pre-training
loss at half of PPO's tokens, no checkpoints. Two clocks: the wall's, and the process's own seconds on a core, which
other programs on the machine do not lengthen. The first iteration warms up and is not counted.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from msgspec import structs
from throughput import first_phase, machine, machine_name, summary

from trainwright.runtime.evaluate.process import one_process
from trainwright.spec.artefact import CHECKPOINTS
from trainwright.spec.plan import CheckpointPlan, PhaseStage, PpoStage, PretrainPlan, TrainingStage

PHASES = ("generate", "score", "critic", "actor")
CLOCKS = {"wall": time.perf_counter, "core": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, nargs="?", default=Path("examples/tiny.toml"))
    parser.add_argument("--queries", type=int, default=64, help="of an iteration")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each query")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer, at most")
    parser.add_argument("--iterations", type=int, default=7, help="that are counted, by each clock")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    phase = first_phase(arguments.spec)
    before = machine(arguments.threads)
    stage = ppo_stage(phase, arguments.queries, arguments.prompt + arguments.new, arguments.new, arguments.iterations)
    with tempfile.TemporaryDirectory() as name, one_process():
        write_inputs(Path(name), stage, arguments.prompt)
        rows = {clock: run(Path(name), stage, clock) for clock in CLOCKS}
    result = {
        "machine": before,
        "versions": {name: version(name) for name in ("torch", "megatron-core", "numpy")},
        "model": {"spec": str(arguments.spec), "parameters": phase.model.parameters, "precision": phase.precision},
        "queries": arguments.queries,
        "prompt_tokens": arguments.prompt,
        "new_tokens": arguments.new,
        "answer_tokens_mean": round(float(np.mean([row["ppo/response_len_mean"] for row in rows["core"]])), 1),
        "clocks": {clock: figures(found, arguments.queries) for clock, found in rows.items()},
    }
    folder = arguments.out / machine_name()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-ppo-iteration-{arguments.threads}-threads.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)
    print(f"written to {path}")


class Numbers:
    """A vocabulary without text, whose answers may end by two of its tokens."""

    begin, end, reward = 1, 2, 4

    def __init__(self, size: int) -> None:
        self.size = size

    def special(self, name: str) -> int:
        return 3

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def ppo_stage(phase: PhaseStage, queries: int, length: int, new: int, iterations: int) -> PpoStage:
    """A round as the spec's defaults have it, without warm-up of the critic and without saving before its end."""
    values = {name: getattr(phase, name) for name in TrainingStage.__struct_fields__}
    micro_batch = 8
    layout = structs.replace(phase.layout, micro_batch=micro_batch, micro_batches=queries // micro_batch)
    values |= {
        "name": "ppo@1", "steps": iterations + 1, "start_from": "sft", "round": 1, "reference_from": "sft",
        "reward_from": "reward@1", "critic_from": None, "queries": "queries", "conditions": {},
        "max_new_tokens": new, "probes": 1, "temperature": 1.0, "top_p": 0.9, "kl": 0.01, "discount": 1.0,
        "gae_lambda": 0.99, "clip": 0.2, "value_clip": None, "normalise_advantages": False,
        "mini_batches": 1, "epochs": 1, "critic_warmup": 0,
        "critic_learning_rate": 5e-6, "placement_kind": "colocated", "offload": True, "sequence_length": length,
        "sequences_per_step": queries, "tokens_per_step": queries * length, "layout": layout, "critic_layout": layout,
        "learning_rate": structs.replace(phase.learning_rate, peak=1e-6, final=1e-6, decay="constant", warmup_steps=0),
        "pretrain": PretrainPlan(mixture={"text": 1.0}, weight=0.5, share=0.5, sequence_length=length),
        "checkpoint": CheckpointPlan(every_steps=None, every_seconds=None, keep=1), "log_every": 10**6,
    }  # fmt: skip
    return PpoStage(**values)


def write_inputs(folder: Path, stage: PpoStage, prompt: int) -> None:
    """Queries, text, and models with random weights in the place of the stages before."""
    from trainwright.runtime.align.data.rows import RowWriter
    from trainwright.runtime.data.indexed import token_dtype, tokens_path, write_documents
    from trainwright.runtime.train import checkpoint
    from trainwright.runtime.train.model import model_of
    from trainwright.runtime.train.optimizer import build_optimizer, wrap

    random = np.random.default_rng(0)
    size = stage.model.vocab_size
    for split, count in (("train", 4 * stage.sequences_per_step), ("held_out", 1)):
        writer = RowWriter(folder, "queries", split, "prompts")
        for number in range(count):
            writer.append(str(number), "default", [random.integers(5, size, prompt).astype(np.int32)])
        writer.finish()
    documents = [random.integers(5, size, 400) for _ in range(200)]
    write_documents(tokens_path(folder, "text", "train"), documents, token_dtype(size))
    heads: tuple[tuple[str, Literal["language", "score"]], ...] = (("sft", "language"), ("reward@1", "score"))
    for name, head in heads:
        chunks = model_of(stage, seed=1, head=head)
        optimizer = build_optimizer(wrap(chunks, stage.layout), stage.optimizer, stage.layout, stage.precision)
        state = checkpoint.TrainState(
            stage=name, step=1, optimizer_steps=1, consumed_tokens=0, consumed_tokens_by_source={}
        )
        checkpoint.save(folder / name / CHECKPOINTS, chunks, optimizer, state, 1)


def run(folder: Path, stage: PpoStage, clock: str) -> list[dict[str, float]]:
    """The metrics of every iteration but the first, their times by that clock."""
    from trainwright.runtime.align.ppo import loop, models
    from trainwright.runtime.align.ppo.appraisal import Appraisal
    from trainwright.runtime.align.ppo.resident import Room
    from trainwright.runtime.align.reward.framing import Framing

    out = folder / clock
    out.mkdir()
    phases: Any = import_module("trainwright.runtime.align.ppo.phases")
    before, phases.time = phases.time, SimpleNamespace(perf_counter=CLOCKS[clock])
    vocabulary: Any = Numbers(stage.model.vocab_size)
    inputs = {"conversations": folder, "tokenize": folder, "sft": folder / "sft", "reward@1": folder / "reward@1"}
    room = Room(moves=False)
    framing = Framing.of({}, folder, vocabulary)
    loop.run(
        stage, waves=1, vocabulary=vocabulary, inputs=inputs, out=out, run_folder=out, should_stop=lambda: False,
        room=room, appraisers=Appraisal(stage, *models.build_critic(stage, inputs, room), framing, out / "critic"),
    )  # fmt: skip
    phases.time = before
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][1:]


def figures(rows: list[dict[str, float]], queries: int) -> dict[str, Any]:
    times = {phase: [row[f"ppo_time/{phase}_ms"] for row in rows] for phase in PHASES}
    whole = [sum(parts) for parts in zip(*times.values(), strict=True)]
    answered = [1e3 * queries * row["ppo/response_len_mean"] / row["ppo_time/generate_ms"] for row in rows]
    return {
        "iteration_ms": summary(whole),
        **{f"{phase}_ms": summary(values) for phase, values in times.items()},
        "generated_tokens_per_s": summary(answered),
    }


def show(result: dict[str, Any]) -> None:
    for clock, found in result["clocks"].items():
        whole = found["iteration_ms"]["median"]
        print(f"by the clock of the {clock}: {whole:,.0f} ms an iteration")
        for phase in PHASES:
            median = found[f"{phase}_ms"]["median"]
            print(f"  {phase:9} {median:8,.0f} ms  {100 * median / whole:3.0f} %")
        print(f"  {found['generated_tokens_per_s']['median']:,.0f} tokens generated per second")


if __name__ == "__main__":
    main()
