"""What would bring all phases down to a share of their time: other layouts, or more nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from trainwright.compiler.search.question import Question
from trainwright.spec.auto import AUTO_KEYS
from trainwright.spec.device import HardwareFile
from trainwright.spec.topology import Topology

# More nodes can save more than their number, as where they make recomputation needless, but hardly more than this.
_BEST_GAIN = 0.6


@dataclass(frozen=True)
class Enough:
    """The first that is found: a layout costs nothing."""

    layout: bool  # other layouts on the same cluster
    nodes: int | None = None  # the layouts as written, on so many; None: not found


def what_is_enough(
    questions: Mapping[int, Question], device: HardwareFile, steps_s: Sequence[float], share: float
) -> Enough:
    """Of phases whose steps take `steps_s` each, in the order of the questions."""
    from trainwright.compiler.search.clusters import cluster_sizes, on_nodes  # numpy comes with it

    pairs = zip(steps_s, questions.values(), strict=True)
    wanted_s = share * sum(step_s * question.steps for step_s, question in pairs)
    nodes = next(iter(questions.values())).nodes
    free = {index: replace(question, topology=_freed(question)) for index, question in questions.items()}
    best_s = on_nodes(free, device, nodes).duration_s
    if best_s is not None and best_s <= wanted_s:
        return Enough(layout=True)
    for size in cluster_sizes(nodes):
        if size > nodes and size * share >= _BEST_GAIN * nodes:
            duration_s = on_nodes(questions, device, size).duration_s
            if duration_s is not None and duration_s <= wanted_s:
                return Enough(layout=False, nodes=size)
    return Enough(layout=False)


def _freed(question: Question) -> Topology:
    return msgspec.structs.replace(question.topology, **dict.fromkeys(AUTO_KEYS, "auto"))
