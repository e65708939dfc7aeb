"""What is said to be enough for the budget is enough."""

import re
from pathlib import Path

from tests.compiler.support import compile_fragment

from trainwright.compiler.search.clusters import cluster_sizes

LONG = """
[run]
name = "base"
[model]
preset = "internlm2-1.8b"
[[phases]]
name = "short"
tokens = "1T"
sequence_length = 4096
tokens_per_step = "4Mi"
mixture = "base"
learning_rate = { peak = 1e-3 }
[cluster]
gpu = "a100-80gb"
nodes = 2
gpus_per_node = 8
price_per_gpu_hour = 2
"""


def told(folder: Path, *sets: str) -> tuple[list[tuple[str, str]], str]:
    """Code and severity of each diagnostic, and the first one's help."""
    _, compiled = compile_fragment(folder, LONG, *sets)
    codes: list[tuple[str, str]] = [(each.code, each.severity) for each in compiled.diagnostics]
    return codes, (compiled.diagnostics[0].help or "") if codes else ""


def days(folder: Path) -> float:
    _, compiled = compile_fragment(folder, LONG, "topology=auto")
    assert compiled.plan is not None
    return (compiled.plan.estimates[0].duration_s or 0.0) / 86400


def test_nodes_are_named_that_meet_the_deadline(tmp_path: Path) -> None:
    sets = ("topology=auto", f"budget.deadline={days(tmp_path) / 4:.1f}d")
    codes, said = told(tmp_path, *sets)
    assert codes == [("TW333", "error")]
    nodes = re.search(r"`nodes = (\d+)` would do", said)
    assert nodes
    assert ("TW333", "error") not in told(tmp_path, *sets, f"cluster.nodes={nodes[1]}")[0]


def test_another_layout_of_the_same_cluster_comes_first(tmp_path: Path) -> None:
    codes, said = told(tmp_path, 'topology.recompute="full"', f"budget.deadline={days(tmp_path) * 1.02:.1f}d")
    assert codes == [("TW333", "error")]
    assert "other layouts" in said


def test_where_only_the_high_end_is_late_it_is_a_warning(tmp_path: Path) -> None:
    codes, _ = told(tmp_path, "topology=auto", f"budget.deadline={days(tmp_path) * 1.03:.1f}d")
    assert codes == [("TW333", "warning")]


def test_money_is_held_against_its_interval_too(tmp_path: Path) -> None:
    cost = days(tmp_path) * 24 * 16 * 2
    assert told(tmp_path, "topology=auto", f"budget.max_cost={cost * 1.03:.0f}")[0] == [("TW332", "warning")]
    assert told(tmp_path, "topology=auto", f"budget.max_cost={cost * 0.8:.0f}")[0] == [("TW332", "error")]
    assert told(tmp_path, "topology=auto", f"budget.max_cost={cost * 1.3:.0f}")[0] == []


def test_sizes_of_clusters_rise_and_hold_the_own() -> None:
    assert cluster_sizes(7) == sorted({*cluster_sizes(7)})
    assert 7 in cluster_sizes(7)
    assert max(cluster_sizes(16)) == 128
