"""What stands in for torch.cuda on a CPU: exactly the names that the adapter lists, and no warning."""

import json
import subprocess
import sys

import pytest
import torch

from trainwright.runtime import host

SCRIPT = """
import json, torch
from trainwright.runtime import host
owners = {"torch": torch, "torch.Tensor": torch.Tensor, "torch.nn.Module": torch.nn.Module, "torch.cuda": torch.cuda,
          "torch.cuda.nvtx": torch.cuda.nvtx, "torch.cuda.random": torch.cuda.random}
# Modules that torch imports by and by show up as new names, too; they replace nothing.
names = lambda owner: {name: getattr(owner, name) for name in dir(owner)
                       if name[:2] != "__" and not isinstance(getattr(owner, name), type(json))}
before = {owner: names(value) for owner, value in owners.items()}
host.install()
host.install()
changed = {owner: sorted(name for name, value in names(owners[owner]).items() if before[owner].get(name) is not value)
           for owner in owners}
import megatron.core.optimizer
print(json.dumps(changed))
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is replaced where there is a CUDA device")
def test_exactly_the_listed_names_are_replaced_and_nothing_warns() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == {owner: sorted(names) for owner, names in host.REPLACED.items()}


def test_the_back_end_fits_the_device() -> None:
    assert (host.device().type, host.backend()) in {("cpu", "gloo"), ("cuda", "nccl")}
