"""The training loop of a stage: step after step, with checkpoints, metrics and a way out."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import ChainedOptimizer
from msgspec import structs
from torch import distributed

from trainwright.kernels import fused
from trainwright.runtime import host
from trainwright.runtime.events import EVENTS_FILE, EventLog
from trainwright.runtime.train import checkpoint
from trainwright.runtime.train.checkpoint import TrainState
from trainwright.runtime.train.learning_rate import learning_rate
from trainwright.runtime.train.memory import measure
from trainwright.runtime.train.metrics import model_flops_per_token, peak_memory_gb
from trainwright.runtime.train.model import Head, model_of
from trainwright.runtime.train.objective import Objective
from trainwright.runtime.train.observe import observed
from trainwright.runtime.train.optimizer import build_optimizer, set_learning_rate, wrap
from trainwright.runtime.train.planned import Planned
from trainwright.runtime.train.report import Report
from trainwright.runtime.train.step import over_all_ranks, train_step
from trainwright.runtime.train.summary import PhaseError, PhaseSummary
from trainwright.spec.artefact import CHECKPOINTS, stage_link
from trainwright.spec.plan import Estimate, TrainingStage


def run(
    stage: TrainingStage,
    objective: Objective,
    *,
    estimate: Estimate | None,
    start: Path | None,
    out: Path,
    run_folder: Path,
    should_stop: Callable[[], bool],
    weights_only: bool = False,
    head: Head = "language",
    finish: Callable[[list[GPTModel]], dict[str, Any]] | None = None,
) -> PhaseSummary:
    """See `trainwright.runtime.train.phase.train`; Megatron-core's parallel state is initialised.

    With `weights_only` the optimizer does not go on from `start`, and with the head "score" that layer does not either.
    `finish` is given the trained chunks after the last step; what it returns is in the summary.
    """
    chunks = model_of(stage, seed=stage.seed, head=head)
    wrapped = wrap(chunks, stage.layout)
    optimizer = build_optimizer(wrapped, stage.optimizer, stage.layout, stage.precision)
    saver = _Saver(stage, chunks, optimizer, out, run_folder)
    state = saver.begin(start, weights_only, head, sources=objective.consumed([0.0] * objective.figures))
    continued_from = state.step if state.step else None
    parameters = count_parameters(chunks)
    flops_per_token = model_flops_per_token(stage.model, stage.sequence_length, head)
    planned = Planned(estimate)
    loss, stop, seconds, tokens_before = None, False, 0.0, state.consumed_tokens
    with Report(stage, out, distributed.get_rank(), state.step) as report:
        kernel = chunks[0].decoder.layers[0].self_attention.core_attention.choice
        used = [name for name in fused.OPERATORS if stage.loss == "fused" or name != "linear_cross_entropy"]
        versions = {name: fused.choose(name, chunks[0].config.params_dtype, host.device()) for name in used}
        chosen = f"attention={kernel.name} ({kernel.why}) loss={stage.loss} "
        chosen += " ".join(f"{name}={version.name}" for name, version in versions.items())
        report.say(f"parameters={parameters} {chosen} from step {state.step}")
        refused = {version.why for version in versions.values() if version.name == "torch"}
        for warning in [kernel.warning, *(sorted(refused) if host.device().type == "cuda" else ())]:
            if warning is not None:
                report.say(f"warning: {warning}")
        while state.step < stage.steps and not stop:
            began = time.perf_counter()
            micro_batches = objective.micro_batches(state.step)
            waited = time.perf_counter() - began
            rate = learning_rate(stage.learning_rate, state.step)
            set_learning_rate(optimizer, rate)
            with observed(planned.measures_next) as seen:
                figures_F, gradient_norm = train_step(wrapped, optimizer, objective, micro_batches)
            # One collective tells every rank the figures, whether any was asked to stop, whether rank 0 wants to save.
            signals = torch.tensor([should_stop(), saver.is_time()], dtype=torch.float64, device=figures_F.device)
            *figures, stops, times = over_all_ranks(torch.cat((figures_F, signals))).tolist()
            took = time.perf_counter() - began
            seconds += took
            stop, is_time = stops > 0, times > 0
            tokens = objective.consumed(figures)
            state = _advanced(state, tokens)
            metrics = objective.metrics(figures)
            loss = metrics["train/loss"]
            if not math.isfinite(loss):
                raise PhaseError(
                    f"the loss is not finite at step {state.step}; the last checkpoint is of {saver.newest}"
                )
            memory = measure(wrapped, optimizer, seen.growth_bytes) if planned.measures_next else None
            tgs = sum(tokens.values()) / distributed.get_world_size() / took
            values = {
                **metrics,
                "train/lr": rate,
                "train/grad_norm": gradient_norm,
                "train/consumed_tokens": state.consumed_tokens,
                "perf/tgs": tgs,
                "perf/tflops_per_gpu": tgs * flops_per_token / 1e12,
                "perf/step_time_ms": took * 1e3,
                "perf/data_wait_pct": 100.0 * waited / took,
                "memory/max_active_gb": peak_memory_gb(),
                **planned.after_step(took, memory, seen),
            }
            done = state.step - (continued_from or 0)
            report.step(state.step, values, seconds_left=(stage.steps - state.step) * seconds / done)
            if stop or is_time or state.step == stage.steps or saver.is_step(state.step):
                saver.save(state)
        interrupted = state.step < stage.steps
        if interrupted:
            report.say(f"asked to stop: saved step {state.step}")
    trained_tokens = state.consumed_tokens - tokens_before
    return PhaseSummary(
        step=state.step,
        steps=stage.steps,
        interrupted=interrupted,
        continued_from=continued_from,
        loss=loss,
        consumed_tokens=state.consumed_tokens,
        parameters=parameters,
        tokens_per_s=trained_tokens / seconds if trained_tokens else None,
        checkpoint=f"{CHECKPOINTS}/{saver.newest}" if saver.newest else None,
        results=finish(chunks) if finish is not None and not interrupted else {},
    )


class _Saver:
    """Where a phase begins, and when and where it is saved."""

    def __init__(
        self, stage: TrainingStage, chunks: list[GPTModel], optimizer: ChainedOptimizer, out: Path, run_folder: Path
    ) -> None:
        self._stage, self._chunks, self._optimizer = stage, chunks, optimizer
        self._folder = out / CHECKPOINTS
        self._events = EventLog(run_folder / EVENTS_FILE, distributed.get_rank())
        self._companions = companions(run_folder)
        self._saved_at = time.monotonic()
        self.newest: str | None = None  # name of the newest checkpoint

    def begin(self, start: Path | None, weights_only: bool, head: Head, sources: dict[str, int]) -> TrainState:
        """The model and the optimizer stand where training goes on; says where that is.

        `sources`: none of their tokens is consumed yet.
        """
        own = checkpoint.latest(self._folder)
        if own is not None:
            self.newest = own.name
            return checkpoint.load(own, self._chunks, self._optimizer)
        fresh = TrainState(
            stage=self._stage.name,
            step=0,
            optimizer_steps=0,
            consumed_tokens=0,
            consumed_tokens_by_source=sources,
        )
        if start is None:
            return fresh
        before = checkpoint.latest(start / CHECKPOINTS)
        if before is None:
            raise PhaseError(f"stage `{self._stage.start_from}` left no complete checkpoint in {start / CHECKPOINTS}")
        if weights_only:
            checkpoint.load_weights(self._chunks, before, head=head == "language")
            self._optimizer.reload_model_params()  # its masters are those weights
            return fresh
        loaded = checkpoint.load(before, self._chunks, self._optimizer)
        return structs.replace(fresh, optimizer_steps=loaded.optimizer_steps)

    def is_time(self) -> bool:
        """Whether this rank's clock says so; only rank 0's is asked, for clocks differ."""
        every = self._stage.checkpoint.every_seconds
        return every is not None and distributed.get_rank() == 0 and time.monotonic() - self._saved_at >= every

    def is_step(self, step: int) -> bool:
        every = self._stage.checkpoint.every_steps
        return every is not None and step % every == 0

    def save(self, state: TrainState) -> None:
        """A complete checkpoint of the state lies in the folder. A collective."""
        began = time.monotonic()
        keep = self._stage.checkpoint.keep
        path = checkpoint.save(self._folder, self._chunks, self._optimizer, state, keep, self._companions)
        self._saved_at = time.monotonic()
        self.newest = path.name
        if distributed.get_rank() == 0:
            took_ms = round((self._saved_at - began) * 1e3, 1)
            self._events.write("checkpoint_saved", stage=self._stage.name, step=state.step, dur_ms=took_ms)


def companions(run_folder: Path) -> dict[str, Path]:
    """What a checkpoint carries to explain itself, as far as the run's folder has it."""
    tokenizer = stage_link(run_folder, "tokenizer")
    files = {
        "resolved.toml": run_folder / "resolved.toml",
        "lineage.json": run_folder / "lineage.json",
        "tokenizer/tokenizer.model": tokenizer / "tokenizer.model",
        "tokenizer/special_tokens.json": tokenizer / "special_tokens.json",
    }
    return {name: path for name, path in files.items() if path.exists()}


def _advanced(state: TrainState, tokens: dict[str, int]) -> TrainState:
    """The state after one more step, which took these tokens of each source."""
    by_source = {name: state.consumed_tokens_by_source.get(name, 0) + count for name, count in tokens.items()}
    return structs.replace(
        state,
        step=state.step + 1,
        optimizer_steps=state.optimizer_steps + 1,
        consumed_tokens=sum(by_source.values()),
        consumed_tokens_by_source=by_source,
    )


def count_parameters(chunks: list[GPTModel]) -> int:
    """How many parameters the whole model really has: shards are added up, copies are not. A collective."""
    own = 0
    if parallel_state.get_data_parallel_rank(with_context_parallel=True) == 0:
        first = parallel_state.get_tensor_model_parallel_rank() == 0
        for chunk in chunks:
            for parameter in chunk.parameters():
                if getattr(parameter, "shared", False):  # the tied embedding's copy on the last stage
                    continue
                if first or getattr(parameter, "tensor_model_parallel", False):
                    own += parameter.numel()
    return int(over_all_ranks(torch.tensor(own, device=host.device())).item())
