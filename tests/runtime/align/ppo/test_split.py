"""What two worlds tell each other."""

from pathlib import Path

import numpy as np
import pytest
from torch._C._distributed_c10d import FileStore

from trainwright.runtime.align.ppo import split
from trainwright.runtime.train import parallel


def test_a_message_of_any_size_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "_PIECE", 100)
    parallel.single()
    try:
        mail = split._Mail(FileStore(str(tmp_path / "store"), 1))
        for number, size in enumerate((0, 1, 1000)):
            mail.send(f"task {number}", ("values", np.arange(size)))
        for number, size in enumerate((0, 1, 1000)):
            task, values = mail.take(f"task {number}")
            assert task == "values"
            assert (values == np.arange(size)).all()
    finally:
        parallel.finalize()
