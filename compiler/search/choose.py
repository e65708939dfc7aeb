"""One layout for each phase: the fastest, unless changing to it from the phase before costs more than it saves.

A phase starts from another one's checkpoint. Ranks that hold the same part of the model read what ranks like them
wrote; under other axes the whole state goes through the storage once more:

    reshard = parameters * (bytes of a weight and of its optimizer state) / storage bandwidth of all nodes
"""

from collections.abc import Mapping

from trainwright.compiler.search.question import Question
from trainwright.compiler.search.result import Candidate, Choice, PhaseSearch

_STATE_BYTES = {"bf16": 2 + 12, "fp32": 4 + 8}  # weights; master weights and moments


def reshard_s(question: Question) -> float:
    """Seconds until every rank holds its part of a checkpoint that was written under other axes."""
    state_bytes = question.model.parameters * _STATE_BYTES[question.precision]
    return state_bytes / question.storage_bytes_per_s


def choose(phases: Mapping[int, PhaseSearch], starts: Mapping[int, int | None]) -> dict[int, Choice]:
    """The layouts with the least time for all phases together; none for a phase that fits in no layout.

    `starts` names the phase that each one starts from. Phases form a tree, so the best of each subtree, given the
    layout of its root, is found from the leaves up.
    """
    children: dict[int | None, list[int]] = {}
    for index in phases:
        start = starts[index]
        known = start is not None and start in phases and phases[start].best
        children.setdefault(start if known else None, []).append(index)
    # The time of a phase and all that start from it, for each of its layouts; and the layouts its children then take.
    totals: dict[int, list[float]] = {}
    taken: dict[int, list[dict[int, int]]] = {}
    for index in sorted(phases, reverse=True):
        totals[index], taken[index] = [], []
        for candidate in phases[index].best:
            total, follow = candidate.step.time_s * phases[index].question.steps, {}
            for child in children.get(index, []):
                costs = [
                    cost + _change_s(phases[child].question, candidate, other)
                    for cost, other in zip(totals[child], phases[child].best, strict=True)
                ]
                if costs:
                    follow[child] = _least(costs)
                    total += costs[follow[child]]
            totals[index].append(total)
            taken[index].append(follow)
    choices: dict[int, Choice] = {}
    picked: list[tuple[int, int, Candidate | None]] = []
    picked += [(root, _least(totals[root]), None) for root in children.get(None, []) if totals[root]]
    while picked:
        index, place, before = picked.pop()
        candidate = phases[index].best[place]
        change_s = _change_s(phases[index].question, before, candidate) if before else 0.0
        choices[index] = Choice(candidate, change_s)
        picked += [(child, follow, candidate) for child, follow in taken[index][place].items()]
    return dict(sorted(choices.items()))


def _least(totals: list[float]) -> int:
    return min(range(len(totals)), key=totals.__getitem__)


def _change_s(question: Question, before: Candidate, after: Candidate) -> float:
    return 0.0 if before.shards == after.shards else reshard_s(question)
