"""What a device can do, from a TOML file: memory, peaks, the share of them that is reached, and links.

Files shipped lie in `hardware/`; each figure has its source there. A user adds a device with a file of the same keys:
`[cluster] gpu = "my-card"` finds `hardware/my-card.toml` beside the spec, then in the user's own folder
(`~/.config/trainwright/hardware`), before the shipped ones, and a name that ends in `.toml` is a path relative to the
spec. `trainwright calibrate` writes such a file for the machine it runs on: `local`.
"""

import os
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from trainwright.spec import codes
from trainwright.spec.diagnostics import Diagnostic, Origin

_FOLDER = Path(__file__).parent / "hardware"

Positive = Annotated[float, Meta(gt=0.0)]
Seconds = Annotated[float, Meta(ge=0.0)]
Share = Annotated[float, Meta(gt=0.0, le=1.0)]
# (size, share) with rising sizes: linear in the logarithm of the size between points, level beyond both ends.
Curve = Annotated[tuple[tuple[Positive, Positive], ...], Meta(min_length=1)]


class Peak(Struct, frozen=True, forbid_unknown_fields=True):
    """Dense peak in FLOP/s; `None` where the device has no such unit or nobody says."""

    bf16: Positive | None = None
    fp16: Positive | None = None
    fp32: Positive | None = None
    fp8: Positive | None = None


class Efficiency(Struct, frozen=True, forbid_unknown_fields=True):
    """The share of a peak that one kernel reaches in training, by its size.

    FLOPs of attention are those of the causal half, and 2.5 times as many backward as forward.
    """

    matmul: Annotated[Curve, Meta(description="By GFLOP of the product.")] = ((1.0, 0.5),)
    matmul_fp8: Annotated[Curve | None, Meta(description="The same in fp8; as `matmul` if absent.")] = None
    attention_forward: Annotated[Curve, Meta(description="By GFLOP of the kernel.")] = ((1.0, 0.3),)
    attention_backward: Curve = ((1.0, 0.25),)
    memory: Annotated[Curve, Meta(description="Of the memory's bandwidth, by MiB moved.")] = ((1.0, 0.7),)


class Link(Struct, frozen=True, forbid_unknown_fields=True):
    """What joins devices: a collective of n bytes on the wire takes `latency_s + n / (bytes_per_s * share)`."""

    bytes_per_s: Annotated[Positive, Meta(description="Per device and direction.")]
    share: Annotated[Share, Meta(description="Of the bandwidth that large collectives reach.")] = 0.8
    latency_s: Annotated[Seconds, Meta(description="Of one collective.")] = 2e-5
    hop_s: Annotated[Seconds, Meta(description="Added for each further member.")] = 1e-6


class Links(Struct, frozen=True, forbid_unknown_fields=True):
    """`device` joins the `domain` devices of a node (or rack), `network` the nodes."""

    device: Link | None = None
    network: Link | None = None
    domain: Annotated[int, Meta(ge=1)] | None = None


class Measured(Struct, frozen=True, forbid_unknown_fields=True):
    """What the figures of a file that `trainwright calibrate` wrote were measured on."""

    date: str
    machine: str
    precision: Annotated[str, Meta(description="That the curves were measured in.")]
    threads: Annotated[int, Meta(description="Of the measuring process.")]
    load: Annotated[float, Meta(description="Other processes that wanted a core when it began: best none.")]
    versions: dict[str, str]
    run: Annotated[str | None, Meta(description="Whose steps adjusted the curves.")] = None


class HardwareFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of device. `None`: not a constant of the kind, so that nothing is derived from it."""

    name: Annotated[str, Meta(description="As people call it.")] = ""
    device: Literal["cpu", "cuda"] = "cuda"
    memory_bytes: Annotated[int, Meta(gt=0)] | None = None
    memory_bytes_per_s: Positive | None = None
    power_watts: Annotated[Positive, Meta(description="Of one device under load.")] | None = None
    launch_s: Annotated[Seconds, Meta(description="Between the starts of two kernels, at least.")] = 5e-6
    peak_flops: Peak = Peak()
    efficiency: Efficiency = Efficiency()
    links: Links = Links()
    measured: Measured | None = None
    residual: Annotated[
        dict[str, Positive], Meta(description="Phase -> measured / planned step time: what the figures do not explain.")
    ] = {}

    def peak(self, precision: str) -> float | None:
        """FLOP/s of dense products in a precision; fp16 runs on bf16's units unless the file says otherwise."""
        peak: float | None = getattr(self.peak_flops, precision)
        return self.peak_flops.bf16 if precision == "fp16" and peak is None else peak

    def of_rank(self, ranks_per_node: int) -> "HardwareFile":
        """What one of so many ranks has: a GPU is a rank's own, a processor's cores and memory are shared."""
        if self.device == "cuda" or ranks_per_node == 1:
            return self
        peaks = {name: getattr(self.peak_flops, name) for name in Peak.__struct_fields__}
        return msgspec.structs.replace(
            self,
            memory_bytes=self.memory_bytes and self.memory_bytes // ranks_per_node,
            memory_bytes_per_s=self.memory_bytes_per_s and self.memory_bytes_per_s / ranks_per_node,
            peak_flops=Peak(**{name: peak and peak / ranks_per_node for name, peak in peaks.items()}),
        )


def known_hardware(root: Path | None = None) -> list[str]:
    """The names that `[cluster] gpu` knows, sorted: those shipped, and for a spec in `root` its own and the user's."""
    return sorted({file.stem for folder in _folders(root) for file in folder.glob("*.toml")})


def hardware_path(name: str, root: Path | None = None) -> Path | None:
    """The file that `[cluster] gpu` means in a spec that lies in `root`; None if there is none."""
    if name.endswith(".toml"):
        candidates = [(root or Path()) / name]
    elif name not in known_hardware(root):  # so that no name leaves the folders
        return None
    else:
        candidates = [folder / f"{name}.toml" for folder in _folders(root)]
    return next((path for path in candidates if path.is_file()), None)


def user_folder() -> Path:
    """Where a user keeps hardware files for all specs."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "trainwright" / "hardware"


def _folders(root: Path | None) -> list[Path]:
    """Where files are looked for, the first one first; the shipped ones alone without a spec."""
    return [_FOLDER] if root is None else [root / "hardware", user_folder(), _FOLDER]


def is_shipped(path: Path) -> bool:
    return path.parent == _FOLDER


def load_hardware(name: str, root: Path | None = None) -> HardwareFile | None:
    """The device of that name, None if there is none. Raises ValueError if its file is wrong (see `mistakes`)."""
    path = hardware_path(name, root)
    return None if path is None else read_hardware(path)


def read_hardware(path: Path) -> HardwareFile:
    """The device that a file describes. Raises ValueError (of TOML, of types) or OSError if it does not."""
    device = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), HardwareFile)
    return device if device.name else msgspec.structs.replace(device, name=path.stem)


def mistakes(path: Path) -> list[Diagnostic]:
    """Every mistake in a hardware file, with its place there."""
    from trainwright.spec.read import read  # what the shipped files do not need
    from trainwright.spec.toml import parse

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [Diagnostic(codes.UNREADABLE_FILE, f"it cannot be read: {error}")]
    document = parse(text, str(path), lambda span: Origin("file", f"{span.file}:{span.line}", span))
    reading = read(document.table, HardwareFile)
    found = document.diagnostics + reading.diagnostics
    if not found:
        for name in Efficiency.__struct_fields__:
            curve = getattr(reading.value.efficiency, name)
            if curve and any(before[0] >= after[0] for before, after in pairwise(curve)):
                cure = "write points as [size, share], the smallest size first"
                found.append(Diagnostic("TW321", f"the sizes of `{name}` do not rise", help=cure))
        if reading.value.peak_flops != Peak() and reading.value.memory_bytes_per_s is None:
            cure = "a step has work that only memory bounds: state both, or neither"
            found.append(Diagnostic("TW321", "it states a peak, but no `memory_bytes_per_s`", help=cure))
    return found
