"""The text Gantt: every rank, every kind, in the width that there is, and legible without colour."""

import pytest
from tests.compiler.test_schedule import chunk_times

from trainwright.compiler.cost.schedule import timeline
from trainwright.compiler.gantt import gantt_lines


def drawn(schedule: str, pipeline: int, micro_batches: int, width: int, chunks: int = 1) -> list[str]:
    made = timeline(chunk_times(pipeline, chunks), micro_batches, schedule, 0.0)
    return [line.plain for line in gantt_lines(made, width)]


def test_a_short_step_is_drawn_whole() -> None:
    """Four micro-batches on two ranks take 15 s: three columns a second."""
    assert drawn("1f1b", 2, 4, 56) == [
        "      0 s                                      15 s idle",
        "pp 0  0░░1░░······0▓▓▓▓▓2░░1▓▓▓▓▓3░░2▓▓▓▓▓···3▓▓▓▓▓  20%",
        "pp 1  ···0░░0▓▓▓▓▓1░░1▓▓▓▓▓2░░2▓▓▓▓▓3░░3▓▓▓▓▓······  20%",
        "░ forward  ▓ backward  · idle",
        "digits: micro-batch",
    ]


def test_a_long_step_shows_its_beginning_and_its_end() -> None:
    lines = drawn("1f1b", 4, 256, 80)
    assert len(lines) == 4 + 4
    assert all("⋯" in line for line in lines[1:5])
    assert "255▓" in lines[1]
    assert lines[-1].endswith("left out")
    assert lines[4].startswith("pp 3  ·")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize(
    ("schedule", "pipeline", "chunks"), [("1f1b", 1, 1), ("interleaved", 4, 2), ("zb-1p", 8, 1), ("1f1b", 64, 1)]
)
def test_no_line_is_longer_than_the_width(schedule: str, pipeline: int, chunks: int, width: int) -> None:
    lines = drawn(schedule, pipeline, 64, width, chunks)
    assert all(len(line) <= width for line in lines)
    rows = [line for line in lines if line.startswith("pp ")]
    assert len(rows) == min(pipeline, 16)
    assert len({len(row) for row in rows}) == 1


def test_weight_passes_and_chunks_are_told_apart() -> None:
    assert any("▒" in line for line in drawn("zb-1p", 2, 4, 100))
    assert any("1b" in line for line in drawn("interleaved", 2, 2, 100, 2))


def test_nothing_can_be_drawn_of_no_time() -> None:
    made = timeline(chunk_times(2, forward=0.0, backward=0.0, weight=0.0), 2, "1f1b", 0.0)
    with pytest.raises(ValueError, match="no time"):
        gantt_lines(made, 80)
