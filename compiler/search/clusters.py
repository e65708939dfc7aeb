"""How long all phases take on clusters of other sizes, each with its best layouts, by the closed form."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from trainwright.compiler.search.phase import fastest_s
from trainwright.compiler.search.question import Question
from trainwright.compiler.search.result import ClusterTried
from trainwright.spec.device import HardwareFile

_LARGEST = 8  # times the nodes of the spec
_ODD = (1, 3, 5)  # sizes are powers of two times these: others hardly divide a step


def cluster_sizes(nodes: int) -> list[int]:
    """The numbers of nodes that are tried for a spec with so many, rising."""
    most = _LARGEST * nodes
    sizes = {odd << power for odd in _ODD for power in range(most.bit_length())} | {nodes}
    return sorted(size for size in sizes if size <= most)


def try_clusters(questions: Mapping[int, Question], device: HardwareFile) -> Iterator[ClusterTried]:
    """Each size of the cluster, the smallest first."""
    sizes = cluster_sizes(next(iter(questions.values())).nodes)
    for nodes in sizes:
        yield on_nodes(questions, device, nodes)


def on_nodes(questions: Mapping[int, Question], device: HardwareFile, nodes: int) -> ClusterTried:
    """What all phases take on so many nodes, failures and checkpoints not counted."""
    steps_s: dict[Question, float | None] = {}  # phases that differ in name and length alone are one search
    total_s = 0.0
    for question in questions.values():
        alike = replace(question, phase="", steps=0, nodes=nodes)
        if alike not in steps_s:
            steps_s[alike] = fastest_s(alike, device)
        step_s = steps_s[alike]
        if step_s is None:
            return ClusterTried(nodes, None, None)
        total_s += step_s * question.steps
    gpus = nodes * next(iter(questions.values())).gpus_per_node
    return ClusterTried(nodes, total_s, gpus * total_s / 3600)
