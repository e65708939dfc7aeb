"""Which checkpoint counts, and which rows of metrics."""

import json
from pathlib import Path

from trainwright.runtime.train import checkpoint
from trainwright.runtime.train.metrics import MetricsLog
from trainwright.spec.artefact import METRICS_FILE


def test_the_newest_complete_one_is_the_latest(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") is None
    for name, complete in {
        "iter_0000500": True,
        "iter_0001000": True,
        "iter_0001500": False,
        "iter_0002000.tmp": True,
    }.items():
        (tmp_path / name).mkdir()
        if complete:
            (tmp_path / name / checkpoint.COMPLETE_FILE).touch()
    assert checkpoint.latest(tmp_path) == tmp_path / "iter_0001000"


def test_rows_after_the_step_that_is_continued_are_dropped(tmp_path: Path) -> None:
    first = MetricsLog(tmp_path, "short", after_step=0)
    for step in (1, 2, 3):
        first.write(step, {"train/loss": 1.0 / step})
    first.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4, "st')  # cut short by a kill
    second = MetricsLog(tmp_path, "short", after_step=2)
    second.write(3, {"train/loss": 0.25})
    second.close()
    rows = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert rows == [
        {"step": step, "stage": "short", "train/loss": loss} for step, loss in ((1, 1.0), (2, 0.5), (3, 0.25))
    ]
    assert len(list((tmp_path / "tb").iterdir())) == 2
