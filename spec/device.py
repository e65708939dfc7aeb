"""What a device can do, from `hardware/NAME.toml`: memory, peaks and links, each figure with its source there."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

_FOLDER = Path(__file__).parent / "hardware"


class Peak(Struct, frozen=True, forbid_unknown_fields=True):
    """Dense peak in FLOP/s; `None` where the device has no such unit or nobody says."""

    bf16: float | None = None
    fp32: float | None = None
    fp8: float | None = None


class Links(Struct, frozen=True, forbid_unknown_fields=True):
    """Bandwidth in bytes per second and direction; `domain` is how many devices the fast link joins."""

    device: float | None = None
    network: float | None = None
    domain: int | None = None


class HardwareFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of device. `None`: not a constant of the kind, so that nothing is derived from it."""

    name: Annotated[str, Meta(description="As people call it.")]
    device: Literal["cpu", "cuda"]
    memory_bytes: int | None = None
    memory_bytes_per_s: float | None = None
    peak_flops: Peak = Peak()
    links: Links = Links()


def known_hardware() -> list[str]:
    """The names that `[cluster] gpu` knows, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def load_hardware(name: str) -> HardwareFile | None:
    """The device of that name, None if there is none."""
    if name not in known_hardware():
        return None
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), HardwareFile)
