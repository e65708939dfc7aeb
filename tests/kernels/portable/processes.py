"""Starts what interprets kernels: a process of its own, since one that interprets them cannot compile them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """`tests.kernels.portable.<module>` in Triton's interpreter; numpy's threads would fight over its small arrays."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", f"tests.kernels.portable.{module}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
