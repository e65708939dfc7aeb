"""The file of rollouts ends where training goes on."""

import json
from pathlib import Path

from trainwright.runtime.align.ppo.rollouts import append, cut_back


def test_rows_of_later_iterations_and_a_line_cut_short_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    cut_back(path, 3)
    assert not path.exists()
    append(path, [{"iteration": i, "answer": "ä"} for i in (1, 1, 2, 3)])
    cut_back(path, 2)
    assert [json.loads(line)["iteration"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 1, 2]
    with path.open("a", encoding="utf-8") as file:
        file.write('{"iteration": 2, "ans')
    cut_back(path, 2)
    assert [json.loads(line)["iteration"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 1, 2]
    cut_back(path, -1)
    assert path.read_bytes() == b""
