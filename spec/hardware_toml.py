"""A hardware file as TOML text that people may read and change."""

from trainwright.spec.device import Curve, HardwareFile, Link


def hardware_toml(file: HardwareFile) -> str:
    """The text; `spec.device.read_hardware` reads the same figures from it, to six digits."""
    lines = ["# Written by `trainwright calibrate`: every figure below was measured, or is explained."]
    lines += [f"name = {_text(file.name)}", f"device = {_text(file.device)}"]
    for key in ("memory_bytes", "memory_bytes_per_s", "power_watts", "launch_s"):
        value = getattr(file, key)
        if value is not None:
            lines.append(f"{key} = {_number(value)}")
    peaks = [(name, getattr(file.peak_flops, name)) for name in file.peak_flops.__struct_fields__]
    lines += ["", f"[peak_flops]  # dense, {_peak_source(file)}"]
    lines += [f"{name} = {_number(value)}" for name, value in peaks if value is not None]
    lines += ["", "[efficiency]  # [size, share of the peak or of the memory's bandwidth]"]
    for name in file.efficiency.__struct_fields__:
        curve = getattr(file.efficiency, name)
        if curve is not None:
            lines.append(f"{name} = {_curve(curve)}")
    if file.links.domain is not None:
        lines += ["", "[links]", f"domain = {file.links.domain}"]
    for name in ("device", "network"):
        link = getattr(file.links, name)
        if link is not None:
            lines += ["", f"[links.{name}]", *_link(link)]
    if file.measured is not None:
        lines += ["", "[measured]"]
        for key in ("date", "machine", "precision"):
            lines.append(f"{key} = {_text(getattr(file.measured, key))}")
        lines += [f"threads = {file.measured.threads}", f"load = {_number(file.measured.load)}"]
        versions = ", ".join(f"{name} = {_text(version)}" for name, version in file.measured.versions.items())
        lines.append(f"versions = {{ {versions} }}")
        if file.measured.run is not None:
            lines.append(f"run = {_text(file.measured.run)}")
    if file.residual:
        lines += ["", "[residual]  # measured / planned step time of that run's phases, with the figures above"]
        lines += [f"{_text(name)} = {_number(value)}" for name, value in file.residual.items()]
    return "\n".join(lines) + "\n"


def _peak_source(file: HardwareFile) -> str:
    if file.device == "cuda" and file.measured is not None:
        return "of the shipped file of this kind, or the best that was measured if there is none"
    return "the best that was measured"


def _link(link: Link) -> list[str]:
    return [f"{name} = {_number(getattr(link, name))}" for name in link.__struct_fields__]


def _curve(curve: Curve) -> str:
    return "[" + ", ".join(f"[{_number(size)}, {_number(share)}]" for size, share in curve) + "]"


def _number(value: float) -> str:
    """TOML keeps whole numbers and others apart."""
    return f"{value:_}" if isinstance(value, int) else repr(float(f"{value:.6g}"))


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
