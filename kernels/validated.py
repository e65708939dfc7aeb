"""What was seen to be right on a GPU: the configurations of our own kernels that may run there.

Compilers differ from version to version and chip to chip, so an entry holds for the very source files, Triton version
and chip it was made with. `python -m trainwright.kernels.validate` makes entries.
"""

import hashlib
import importlib.util
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_HERE = Path(__file__).resolve().parent
_HOPPER = ("packing.py", "portable/attention.py", "hopper/attention.py", "hopper/operator.py", "hopper/tiles.py")
SOURCES = {  # by operator the files that decide its code
    "attention": ("packing.py", "portable/attention.py", "portable/operator.py", "portable/tiles.py"),
    "hopper_attention": _HOPPER,
    "hopper_gluon": (*_HOPPER, "hopper/gluon_forward.py"),
    "linear_cross_entropy": ("linear_cross_entropy.py", "portable/linear_cross_entropy.py"),
    "rms_norm": ("portable/rms_norm.py", "portable/rows.py"),
    "rope": ("portable/rope.py", "portable/rows.py"),
    "swiglu": ("portable/swiglu.py", "portable/rows.py"),
}


@dataclass(frozen=True)
class Configuration:
    """What decides the code that runs. `chip` is such as sm_90, `dtype` such as bf16; `head_size` 0 stands for any."""

    operator: str
    source: str
    triton: str
    chip: str
    dtype: str
    head_size: int


@dataclass(frozen=True)
class Entry:
    """A configuration that was right; `errors` are the largest relative norms of the errors against float64."""

    configuration: Configuration
    date: str
    device: str
    torch: str
    errors: dict[str, float]


def configuration(operator: str, dtype: torch.dtype, head_size: int, device: torch.device) -> Configuration:
    """That of an operator on a CUDA device. Needs Triton."""
    import triton

    return Configuration(operator, source_hash(operator), triton.__version__, chip(device), name_of(dtype), head_size)


def chip(device: torch.device) -> str:
    """Such as sm_90; cpu where there is no GPU."""
    if device.type == "cpu":
        return "cpu"
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def name_of(dtype: torch.dtype) -> str:
    """bf16, fp16, fp32; others as torch calls them."""
    names = {known: name for name, known in _DTYPES.items()}
    return names.get(dtype, str(dtype).removeprefix("torch."))


@lru_cache
def source_hash(operator: str) -> str:
    """Of the files that decide the operator's code."""
    digest = hashlib.sha256()
    for name in SOURCES[operator]:
        digest.update(name.encode() + b"\0" + (_HERE / name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def places() -> tuple[Path, Path]:
    """The files that are searched: the one that comes with these kernels, and the user's own."""
    return _HERE / "validated.json", Path.home() / ".config" / "trainwright" / "validated.json"


def own_place() -> Path:
    """Where new entries go: into a checkout, else into the user's file."""
    shipped, users = places()
    return shipped if (_HERE.parent / "pyproject.toml").exists() else users


def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def is_validated(wanted: Configuration) -> bool:
    return any(entry.configuration == wanted for path in places() for entry in read(path))


def summary(device: torch.device) -> str:
    """Which configurations may run on this device, in words."""
    if device.type == "cpu":
        return "nothing to validate: a CPU interprets our kernels"
    if not has_triton():
        return "nothing: triton is not installed"
    entries = {entry.configuration for path in places() for entry in read(path)}
    names = sorted(
        f"{entry.operator} {entry.dtype}" + (f" D{entry.head_size}" if entry.head_size else "")
        for entry in entries
        if entry == configuration(entry.operator, _DTYPES[entry.dtype], entry.head_size, device)
    )
    return ", ".join(names) if names else "nothing yet: `trainwright kernels validate` tries our kernels"


def read(path: Path) -> list[Entry]:
    """The file's entries; none if there is no file."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Entry(**{**row, "configuration": Configuration(**row["configuration"])}) for row in rows]


def record(path: Path, checked: list[Configuration], right: list[Entry]) -> None:
    """The file holds the `right` entries, and no older one of what was `checked`."""
    kept = [entry for entry in read(path) if entry.configuration not in checked]
    rows = sorted((asdict(entry) for entry in (*kept, *right)), key=lambda row: json.dumps(row["configuration"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
