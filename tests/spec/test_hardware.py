"""Device files: the shipped ones, a user's own, and what is said of a file that is wrong."""

from pathlib import Path

import pytest
from tests.compiler.support import compile_fragment

from trainwright.spec.device import Efficiency, hardware_path, known_hardware, load_hardware, mistakes, read_hardware

OURS = """
memory_bytes = 24_000_000_000
memory_bytes_per_s = 1.0e12
[peak_flops]
bf16 = 1.65e14
"""


@pytest.mark.parametrize("name", [name for name in known_hardware() if name != "cpu"])
def test_shipped_files_are_whole(name: str) -> None:
    path = hardware_path(name)
    assert path is not None
    assert mistakes(path) == []
    device = read_hardware(path)
    assert device.peak("fp16")
    assert device.memory_bytes_per_s
    assert device.power_watts
    assert device.links.device
    assert device.links.network
    for curve in Efficiency.__struct_fields__:
        assert all(0 < share <= 1 for _, share in getattr(device.efficiency, curve) or ()), curve


def test_every_figure_of_a_shipped_file_says_where_it_is_from() -> None:
    for name in known_hardware():
        path = hardware_path(name)
        assert path is not None
        table = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            table = line if line.startswith("[") else table
            if "=" in line and not line.startswith(("name", "device", "domain", "#")):
                assert "#" in line or "#" in table, f"{name}: {line}"


def test_a_file_beside_the_spec_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "ours.toml").write_text(OURS)
    (tmp_path / "other.toml").write_text(OURS)
    assert "ours" in known_hardware(tmp_path)
    for name in ("ours", "other.toml", "hardware/ours.toml"):
        device = load_hardware(name, tmp_path)
        assert device is not None
        assert device.name == Path(name).stem
        assert device.peak_flops.bf16 == 1.65e14


def test_a_file_beside_the_spec_wins_over_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "h100.toml").write_text(OURS)
    device = load_hardware("h100", tmp_path)
    assert device is not None
    assert device.memory_bytes == 24_000_000_000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("memory = 1", "unknown key `memory`"),
        ('power_watts = "much"', "expected a number"),
        ("power_watts = -1.0", "greater than 0"),
        ("power_watts = [", ""),
        ("[efficiency]\nmatmul = [[10.0, 0.5], [1.0, 0.2]]", "the sizes of `matmul` do not rise"),
        ("[efficiency]\nmatmul = [[1.0]]", "exactly 2 elements"),
        ("[links.device]\nshare = 0.5", "missing"),
    ],
)
def test_a_wrong_file_is_told_and_not_raised(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f"{line}\n")
    found = mistakes(path)
    assert found
    assert said in found[0].message
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "wrong.toml").write_text(f"{line}\n")
    _, compiled = compile_fragment(tmp_path / "spec", '[cluster]\ngpu = "wrong.toml"\n')
    told = [each for each in compiled.diagnostics if each.code == "TW321"]
    assert told
    assert told[0].message.startswith("wrong.toml")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(b"\xff\xfe")
    assert "cannot be read" in mistakes(path)[0].message


def test_a_name_cannot_leave_the_folders(tmp_path: Path) -> None:
    (tmp_path / "secret.toml").write_text(OURS)
    assert hardware_path("../secret", tmp_path / "spec") is None
