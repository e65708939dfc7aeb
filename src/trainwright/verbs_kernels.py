"""Verbs about our own kernels. Each works in a process of its own: what interprets kernels cannot compile them."""

import argparse
import importlib.util
import os
import subprocess
import sys

from trainwright.verbs_compile import fail


def validate(arguments: argparse.Namespace) -> int:
    """Every configuration was tried on this machine's GPU, and those that are right were recorded."""
    return _on_the_device("validate", *(["--quick"] if arguments.quick else []), *_json(arguments))


def bench(arguments: argparse.Namespace) -> int:
    """Our kernels beside others, in a table and a file."""
    output = ["-o", str(arguments.output)] if arguments.output is not None else []
    return _on_the_device("bench", "--op", arguments.op, *output, *_json(arguments))


def compile_check(arguments: argparse.Namespace) -> int:
    """Every configuration was compiled for a GPU that need not be there, and held to its budget."""
    if not _has("triton"):
        return 1
    return _start("compile_check", {}, *_json(arguments))


def _json(arguments: argparse.Namespace) -> list[str]:
    return ["--json"] if arguments.json else []


def _on_the_device(module: str, *options: str) -> int:
    """The module's exit code; without a GPU it interprets kernels, with threads that do not fight over small arrays."""
    if not (_has("torch") and _has("triton")):
        return 1
    import torch

    interpreter = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return _start(module, {} if torch.cuda.is_available() else interpreter, *options)


def _start(module: str, environment: dict[str, str], *options: str) -> int:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    # What is tried on purpose (NaN, infinities) is no news.
    command = [sys.executable, "-W", "ignore", "-m", f"trainwright.kernels.{module}", *options]
    return subprocess.run(command, env=kept | environment, check=False).returncode


def _has(package: str) -> bool:
    """Whether the package is installed; told if it is not."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        fail(f"this needs {package}, which is not installed: pip install {package}")
    return found
