"""What a rank tells of its stage while it trains: its log, and on rank 0 metrics, lines and a progress bar."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trainwright.runtime.train.metrics import MetricsLog
from trainwright.spec.plan import TrainingStage


class Report:
    """Opened after the stage knows which step it goes on from; closed by `with`."""

    def __init__(self, stage: TrainingStage, out: Path, rank: int, after_step: int) -> None:
        self._stage = stage
        logs = out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._log = (logs / f"rank_{rank:05d}.log").open("a", encoding="utf-8")
        self._metrics = MetricsLog(out, stage.name, after_step) if rank == 0 else None
        self._bar: Any = None
        if rank == 0 and sys.stderr.isatty():
            self._bar = tqdm(total=stage.steps, initial=after_step, desc=stage.name, unit="step", dynamic_ncols=True)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.close()
        if self._metrics is not None:
            self._metrics.close()
        if self._bar is not None:
            self._bar.close()

    def say(self, text: str) -> None:
        """The line stands in the rank's log with the time; rank 0 shows it."""
        self._log.write(f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._log.flush()
        if self._metrics is None:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, flush=True)

    def step(self, step: int, values: Mapping[str, float], seconds_left: float) -> None:
        """The step's figures are written; every `log_every` steps, and after the last, also as a line."""
        self.row(step, values, _line(step, self._stage.steps, values, seconds_left), loss=values["train/loss"])

    def row(self, step: int, values: Mapping[str, float], line: str, **shown: float) -> None:
        """As `step`, with a line of the caller's own, and figures to show beside the progress bar."""
        if self._metrics is not None:
            self._metrics.write(step, values)
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()}, refresh=False)
            self._bar.update()
        if step % self._stage.log_every == 0 or step == self._stage.steps:
            self.say(line)


def _line(step: int, steps: int, values: Mapping[str, float], seconds_left: float) -> str:
    """InternEvo's keys, and how long the stage will still take."""
    hours, rest = divmod(int(seconds_left), 3600)
    return (
        f"step={step}/{steps} loss={values['train/loss']:.4f} tgs={values['perf/tgs']:.1f} "
        f"tflops={values['perf/tflops_per_gpu']:.4g} lr={values['train/lr']:.3e} "
        f"grad_norm={values['train/grad_norm']:.3f} eta={hours}:{rest // 60:02d}:{rest % 60:02d}"
    )
