"""Tasks on several processes: in order, and never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.parallel import ordered_map

# Functions of the standard library: workers must be able to import what they run, and they cannot import this file.


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    numbers = [-3, 5, -1, 4, 4, -8, 9, 0, 2]
    assert list(ordered_map(abs, numbers, workers)) == [abs(number) for number in numbers]
    assert list(ordered_map(abs, [], workers)) == []


def test_tasks_are_drawn_only_as_results_are_taken() -> None:
    drawn = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    results = ordered_map(abs, tasks(), 2)
    next(results)
    assert len(drawn) < 10
    results.close()  # type: ignore[attr-defined]


def test_what_a_task_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(ordered_map(int, ["1", "x", "3"], 2))


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(DataError, match="a worker process died"):
        list(ordered_map(os._exit, [9, 9, 9], 2))


def test_leaving_early_does_not_wait_for_tasks_under_way() -> None:
    started = time.monotonic()
    results = ordered_map(time.sleep, [0, 60, 60, 60], 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 30


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from trainwright.runtime.data.parallel import ordered_map\n"
        "if __name__ == '__main__':\n"
        "    for _ in ordered_map(time.sleep, [0, 0, 60, 60, 60, 60, 60, 60], 2):\n"
        "        print('one', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "one\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
