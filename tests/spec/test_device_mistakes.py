"""A hardware file of the user's own that cannot be priced with is told."""

from pathlib import Path

from trainwright.spec.device import mistakes


def test_a_peak_without_a_memory_bandwidth_prices_no_step(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('device = "cuda"\n[peak_flops]\nbf16 = 3e14\n')
    assert ["no `memory_bytes_per_s`" in each.message for each in mistakes(path)] == [True]
    path.write_text('device = "cuda"\nmemory_bytes = 80_000_000_000\n')
    assert mistakes(path) == []
