"""One layout for each phase: the fastest, unless changing to it from the phase before costs more than it saves.

A phase starts from another one's checkpoint. Ranks that hold the same part of the model read what ranks like them
wrote; under other axes the whole state goes through the storage once more:

    reshard = parameters * (bytes of a weight and of its optimizer state) / storage bandwidth of all nodes
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trainwright.compiler.search.question import Question
from trainwright.compiler.search.result import Choice, PhaseSearch, Shards

_STATE_BYTES = {"bf16": 2 + 12, "fp32": 4 + 8}  # weights; master weights and moments


@dataclass(frozen=True)
class _Option:
    """A layout of a phase, and the time of the phase and of all that start from it."""

    shards: Shards
    total_s: float
    follow: dict[int, int]  # phase that starts from it -> place of its option


def reshard_s(question: Question) -> float:
    """Seconds until every rank holds its part of a checkpoint that was written under other axes."""
    state_bytes = question.model.parameters * _STATE_BYTES[question.precision]
    return state_bytes / question.storage_bytes_per_s


def choose(
    phases: Mapping[int, PhaseSearch], pinned: Mapping[int, Shards], starts: Mapping[int, int | None]
) -> dict[int, Choice]:
    """The layouts with the least time for all phases together; none for a phase that fits in no layout.

    `pinned` has the phases that were not searched for, `starts` the phase that each one starts from. Phases form a
    tree, so the best of each subtree, given the layout of its root, is found from the leaves up.
    """
    layouts = {index: [(shards, 0.0)] for index, shards in pinned.items()}
    for index, found in phases.items():
        steps = found.question.steps
        layouts[index] = [(candidate.shards, candidate.step.time_s * steps) for candidate in found.best]
    change_s = max((reshard_s(found.question) for found in phases.values()), default=0.0)  # all are alike
    options: dict[int, list[_Option]] = {}
    for index in sorted(layouts, reverse=True):
        after = [child for child in options if starts[child] == index and options[child]]
        options[index] = []
        for shards, time_s in layouts[index]:
            follow = {child: _best(options[child], shards, change_s) for child in after}
            total_s = time_s + sum(_cost(options[child][follow[child]], shards, change_s) for child in after)
            options[index].append(_Option(shards, total_s, follow))
    taken: dict[int, int] = {}
    choices: dict[int, Choice] = {}
    for index in sorted(options):
        start = starts[index]
        before = options[start][taken[start]] if start in taken else None
        if not options[index]:
            continue
        taken[index] = before.follow[index] if before else _best(options[index], None, change_s)
        if index in phases:
            candidate = phases[index].best[taken[index]]
            changed = before is not None and before.shards != candidate.shards
            choices[index] = Choice(candidate, change_s if changed else 0.0)
    return choices


def _best(options: list[_Option], before: Shards | None, change_s: float) -> int:
    costs = [_cost(option, before, change_s) for option in options]
    return min(range(len(costs)), key=costs.__getitem__)


def _cost(option: _Option, before: Shards | None, change_s: float) -> float:
    return option.total_s + (0.0 if before in (None, option.shards) else change_s)
