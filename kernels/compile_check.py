"""Compiles every configuration of the portable kernels for a GPU that need not be there, and reads what they take.

    python -m trainwright.kernels.compile_check [--arch 90] [--only KERNEL] [--json]

Registers, spills and shared memory come from ptxas, instruction counts from cuobjdump, both of Triton's own wheel.
Exits with 1 if a kernel is over its budget: spills, shared memory, too few warp-group products (HGMMA on sm_90), or
products that fell back to the older instruction (HMMA). Compiling is not running: that they are right on a GPU is
what `validated.json` records. Results are kept in Triton's cache (TRITON_CACHE_DIR).
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainwright.kernels.portable.tiles import Tiles

BUDGETS = Path(__file__).parent / "budgets.json"
SHARED_BYTES = 232_448  # a block's limit on sm_90
DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
HEAD_SIZES = (64, 128, 256)
HIDDEN_SIZES = (2048, 4096, 8192)
ROPE_HEAD_SIZES = (64, 128)


@dataclass(frozen=True)
class Compiled:
    """What one configuration of a kernel takes."""

    kernel: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    hgmma: int
    hmma: int
    warnings: tuple[str, ...]
    tma: int = 0


@dataclass(frozen=True)
class Job:
    """A kernel, and all that decides its code."""

    name: str
    function: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...]
    warps: int
    stages: int
    registers: int | None = None  # a thread's at the start, where warps trade them later


def jobs(arch: int) -> Iterator[Job]:
    """Every configuration of attention and of the fused operators that sm_`arch` can run."""
    yield from _attention_jobs()
    if arch == 90:
        yield from _hopper_jobs()
    for dtype in DTYPES:
        yield from _fused_jobs(dtype)


def _hopper_jobs() -> Iterator[Job]:
    """The forward pass in Gluon, and both passes by descriptors, causal and not, with four query heads a group."""
    from trainwright.kernels.hopper import attention, gluon_forward
    from trainwright.kernels.hopper.tiles import TABLE

    for dtype, (size, tiles), causal in itertools.product(("bf16", "fp16"), TABLE.items(), (True, False)):
        what = f"{'' if causal else '_full'} {dtype} D{size}"
        block, stages = gluon_forward.BLOCKS[size]
        constants = {"GROUP": 4, "D": size, "BN": block, "STAGES": stages, "CAUSAL": causal}
        signature, aligned = _signature(gluon_forward.forward, constants, dtype)
        start = gluon_forward.REGISTERS
        yield Job(f"hopper_gluon{what}", gluon_forward.forward, signature, constants, aligned, 4, 1, start)
        kinds: tuple[tuple[str, Any, Tiles, dict[str, Any]], ...] = (
            ("forward", attention.forward, tiles.forward, {}),
            ("backward_keys", attention.backward_keys, tiles.keys, {"SPECIAL": tiles.special}),
            ("backward_queries", attention.backward_queries, tiles.queries, {}),
        )
        for kind, function, tile, own in kinds:
            constants = {"GROUP": 4, "D": size, "BM": tile.BM, "BN": tile.BN, "CAUSAL": causal, "WINDOW": False} | own
            signature, aligned = _signature(function, constants, dtype)
            yield Job(f"hopper_{kind}{what}", function, signature, constants, aligned, tile.warps, tile.stages)


def _fused_jobs(dtype: str) -> Iterator[Job]:
    """Each code there is: a hidden size of 6144 runs that of 8192, and SwiGLU's is the same for every width."""
    from trainwright.kernels.portable import linear_cross_entropy as loss
    from trainwright.kernels.portable import rms_norm, rope, swiglu

    kernels: list[tuple[str, Any, dict[str, Any], int]] = [
        (f"swiglu_forward {dtype}", swiglu.forward, {"BLOCK": swiglu.BLOCK}, swiglu.WARPS),
        (f"swiglu_backward {dtype}", swiglu.backward, {"BLOCK": swiglu.BLOCK}, swiglu.WARPS),
        (f"logit_statistics {dtype}", loss.statistics, {"BLOCK": loss.STATISTICS_BLOCK}, loss.STATISTICS_WARPS),
        (f"logits_to_gradient {dtype}", loss.to_gradient, {"BLOCK": loss.GRADIENT_BLOCK}, loss.GRADIENT_WARPS),
    ]
    for size, (what, add) in itertools.product(HIDDEN_SIZES, (("norm", False), ("add_norm", True))):
        launch = rms_norm.Launch.forward(size)
        constants: dict[str, Any] = {"ADD": add, "BLOCK": launch.block}
        kernels.append((f"{what}_forward {dtype} H{size}", rms_norm.forward, constants, launch.warps))
        launch = rms_norm.Launch.backward(size, DTYPES[dtype])
        constants = {"ADD": add, "BLOCK": launch.block, "STAGES": launch.stages}
        kernels.append((f"{what}_backward {dtype} H{size}", rms_norm.backward, constants, launch.warps))
    for size, (what, placed) in itertools.product(ROPE_HEAD_SIZES, (("turn", False), ("turn_placed", True))):
        rows, block = rope.rows_and_block(size // 2)
        constants = {"PLACED": placed, "ROWS": rows, "BLOCK": block}
        kernels.append((f"{what} {dtype} D{size}", rope.turn, constants, rope.WARPS))
    for name, function, constants, warps in kernels:
        signature, aligned = _signature(function, constants, dtype)
        yield Job(name, function, signature, constants, aligned, warps, 1)


def _attention_jobs() -> Iterator[Job]:
    """Every configuration the table of tiles can give, causal, with four query heads a group."""
    from trainwright.kernels.portable import attention
    from trainwright.kernels.portable.tiles import configuration

    for dtype, width in DTYPES.items():
        for size in HEAD_SIZES:
            tiles = configuration(size, width)
            common: dict[str, Any] = {"GROUP": 4, "D": size, "DP": size, "CAUSAL": True, "WINDOW": False}
            common["PRECISION"] = "ieee" if dtype == "fp32" else "tf32"
            kinds: tuple[tuple[str, Any, Tiles, dict[str, Any]], ...] = (
                ("forward", attention.forward, tiles.forward, {}),
                ("backward_keys", attention.backward_keys, tiles.keys, {"ATOMIC": False}),
                ("backward_keys_atomic", attention.backward_keys, tiles.keys, {"ATOMIC": True}),
                ("backward_queries", attention.backward_queries, tiles.queries, {}),
            )
            for name, function, tile, own in kinds:
                constants = common | own | {"BM": tile.BM, "BN": tile.BN}
                signature, aligned = _signature(function, constants, dtype)
                yield Job(f"{name} {dtype} D{size}", function, signature, constants, aligned, tile.warps, tile.stages)


def _signature(function: Any, constants: dict[str, Any], dtype: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Triton's types of all arguments, and which of them are divisible by 16: pointers, strides and widths are."""
    signature, aligned = {}, []
    for name in function.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in ("DOCUMENTS", "TILES", "POSITIONS"):
            signature[name] = "*i32"
        elif name == "PLACES":
            signature[name] = "*i64"
        elif name in ("LSE", "LABEL", "GRAD", "DELTA", "INVERSE", "PARTIAL") or (
            name == "GQ" and constants.get("ATOMIC") is not None
        ):
            signature[name] = "*fp32"
        elif name.isupper():
            signature[name] = f"*{dtype}"
        elif name.startswith("scale") or name in ("eps", "sign", "z_loss"):
            signature[name] = "fp32"
        else:
            signature[name] = "i64" if name.startswith("s_") else "i32"
        if signature[name].startswith("*") or name.startswith("s_") or name in ("features", "width", "half"):
            aligned.append(name)
    return signature, tuple(aligned)


def compile_job(job: Job, arch: int) -> Compiled:
    """The job compiled for sm_`arch`. Raises whatever Triton raises if it cannot be."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction

    places = {name: place for place, name in enumerate(job.function.arg_names)}
    attributes = {(places[name],): [["tt.divisibility", 16]] for name in job.aligned}
    kind = GluonASTSource if isinstance(job.function, GluonJITFunction) else ASTSource
    source = kind(fn=job.function, signature=job.signature, constexprs=job.constants, attrs=attributes)
    options = {"num_warps": job.warps, "num_stages": job.stages}
    if job.registers is not None:
        options["maxnreg"] = job.registers
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    registers, spills, warnings = _assembled(compiled.asm["ptx"], arch)
    code = _disassembled(compiled.asm["cubin"])
    return Compiled(
        kernel=job.name,
        registers=registers,
        spill_bytes=spills,
        shared_bytes=compiled.metadata.shared,
        hgmma=len(re.findall(r"\bHGMMA", code)),
        hmma=len(re.findall(r"\bHMMA", code)),
        warnings=warnings,
        tma=len(re.findall(r"\bUTMALDG", code)),
    )


def _kept(name: str, warps: int, arch: int) -> Compiled:
    """What the job of that name takes, compiled at most once for each source, compiler and version of this check."""
    import triton

    job = replace(next(job for job in jobs(arch) if job.name == name), warps=warps)
    what = (triton.__version__, arch, job.function.cache_key, replace(job, function=None), Path(__file__).read_text())
    place = Path(triton.knobs.cache.dir) / "compile_check" / hashlib.sha256(repr(what).encode()).hexdigest()
    if place.exists():
        known = json.loads(place.read_text())
        return Compiled(**{**known, "warnings": tuple(known["warnings"])})
    compiled = compile_job(job, arch)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(asdict(compiled)))
    part.rename(place)
    return compiled


def _assembled(ptx: str, arch: int) -> tuple[int, int, tuple[str, ...]]:
    """Registers a thread, bytes spilled, and what ptxas remarks."""
    from triton.backends.nvidia.compiler import get_ptxas

    ptxas = get_ptxas(arch)
    program = ptxas[0] if isinstance(ptxas, tuple) else ptxas.path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        name = f"sm_{arch}a" if arch >= 90 else f"sm_{arch}"
        command = [program, "-v", "--gpu-name", name, str(source), "-o", f"{folder}/kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    registers = re.search(r"Used (\d+) registers", said)
    if spilled is None or registers is None:
        raise RuntimeError(f"ptxas said something else than expected:\n{said}")
    remarks = tuple(line.strip() for line in said.splitlines() if "C75" in line or "warning" in line.lower())
    return int(registers[1]), int(spilled[1]) + int(spilled[2]), remarks


def _disassembled(cubin: bytes) -> str:
    import triton.backends.nvidia as nvidia

    program = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return subprocess.run([program, "-sass", path], capture_output=True, text=True, check=True).stdout


def over_budget(compiled: Compiled, budget: dict[str, int], arch: int) -> list[str]:
    """What is wrong with it, in words; nothing if it keeps its budget."""
    wrong = []
    if compiled.spill_bytes > budget["spill_bytes"]:
        wrong.append(f"spills {compiled.spill_bytes} bytes, of {budget['spill_bytes']} allowed")
    if compiled.registers > budget["registers"]:
        wrong.append(f"takes {compiled.registers} registers, of {budget['registers']} allowed")
    if compiled.shared_bytes > min(SHARED_BYTES, budget["shared_bytes"]):
        wrong.append(f"takes {compiled.shared_bytes} bytes of shared memory, of {budget['shared_bytes']} allowed")
    if arch == 90 and compiled.hgmma < budget["hgmma"]:
        wrong.append(f"has {compiled.hgmma} HGMMA, {budget['hgmma']} expected")
    if compiled.tma < budget.get("tma", 0):
        wrong.append(f"has {compiled.tma} TMA loads, {budget['tma']} expected")
    if arch == 90 and budget["hgmma"] and compiled.hmma:
        wrong.append(f"has {compiled.hmma} HMMA: a product fell back")
    return wrong + [f"ptxas: {line}" for line in compiled.warnings]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, default=90)
    parser.add_argument("--budgets", type=Path, default=BUDGETS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help="this kernel alone")
    parser.add_argument("--warps", type=int, help="instead of the table's")
    parser.add_argument("--write", action="store_true", help="take what was measured as the new budgets")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("a process that interprets kernels cannot compile them: unset TRITON_INTERPRET")
    import triton

    budgets: dict[str, dict[str, int]] = json.loads(arguments.budgets.read_text()) if not arguments.write else {}
    results, failed = [], 0
    chosen = [job for job in jobs(arguments.arch) if arguments.only in (None, job.name)]
    if not chosen:
        parser.error(f"no kernel is called {arguments.only!r}")
    asked = [(job.name, arguments.warps or job.warps, arguments.arch) for job in chosen]
    # Processes, because Triton's own compiler is mostly Python.
    pool = ProcessPoolExecutor(min(len(asked), os.cpu_count() or 1), get_context("spawn"))
    for job, compiled in zip(chosen, pool.map(_kept, *zip(*asked, strict=True)), strict=True):
        results.append(compiled)
        wrong = [] if arguments.write else over_budget(compiled, budgets[job.name], arguments.arch)
        failed += bool(wrong)
        if not arguments.json:
            figures = f"{compiled.registers:4} registers {compiled.spill_bytes:5} B spilled "
            figures += f"{compiled.shared_bytes / 1024:6.1f} KiB shared {compiled.hgmma:3} HGMMA {compiled.hmma:4} HMMA"
            print(f"{job.name:32} {figures}  {'; '.join(wrong)}", flush=True)
    if arguments.json:
        print(json.dumps({"triton": triton.__version__, "kernels": [asdict(each) for each in results]}))
    if arguments.write:
        keys = ("registers", "spill_bytes", "shared_bytes", "hgmma", "tma")
        table = {each.kernel: {key: getattr(each, key) for key in keys} for each in results}
        arguments.budgets.write_text(json.dumps(table, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
