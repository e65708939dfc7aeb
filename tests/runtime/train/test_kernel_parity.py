"""A run trains the same whichever implementation of attention it asks for; a missing one is told before it starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, Workspace

pytestmark = pytest.mark.slow

LOSS_BOUND = 1e-5  # relative, in fp32; the gradient norm amplifies what rounding did to the weights before
NORM_BOUND = 1e-4


@pytest.fixture
def parity(tmp_path: Path) -> Workspace:
    """The micro spec's first phase alone, in three steps of eight packed sequences."""
    text = (ROOT / "tests/cases/runs/micro.toml").read_text().split('[[phases]]\nname = "second"')[0]
    assert 'tokens = "12Ki"' in text
    text = text.replace('tokens = "12Ki"', "tokens = 1536").replace("tokens_per_step = 1024", "tokens_per_step = 512")
    (tmp_path / "parity.toml").write_text(text.replace('name = "micro"', 'name = "parity"'))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return Workspace(tmp_path)


def steps(workspace: Workspace, attention: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of metrics, and what was said. Only the phase runs again: the text is the same."""
    done = workspace.trainwright("run", "parity.toml", "-y", "-q", "-s", f"kernels.attention={attention}", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (workspace.folder / "runs/parity/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], done.stdout


def test_every_attention_gives_the_same_losses(parity: Workspace) -> None:
    pytest.importorskip("triton", reason="the portable kernels need triton, which exists for Linux alone")
    reference, _ = steps(parity, "reference")
    assert len(reference) == 3
    for attention in ("sdpa", "portable"):
        rows, said = steps(parity, attention)
        assert f"attention={attention} (asked for by name" in said
        for row, other in zip(rows, reference, strict=True):
            assert row["train/loss"] == pytest.approx(other["train/loss"], rel=LOSS_BOUND)
            assert row["train/grad_norm"] == pytest.approx(other["train/grad_norm"], rel=NORM_BOUND)


def test_a_kernel_that_cannot_run_here_is_told_before_anything_runs(parity: Workspace) -> None:
    blocked = parity.folder / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['triton'] = None\n")
    done = parity.trainwright(
        "run", "parity.toml", "-y", "-q", "-s", "kernels.attention=portable", PYTHONPATH=str(blocked)
    )
    assert done.returncode == 1
    assert 'phase `first`: `attention = "portable"` needs triton, which is not installed' in done.stderr
    assert not (parity.folder / "runs").exists()
