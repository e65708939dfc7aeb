"""Work that the ranks of a group share out, and whose results all of them have."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import distributed

Result = TypeVar("Result")


def shared_out(
    count: int, work: Callable[[Sequence[int]], list[Result]], group: distributed.ProcessGroup
) -> list[Result]:
    """The results of items 0 to `count`, in order, on every rank; each rank works on every n-th item.

    `work` is given its items' numbers, possibly none, and returns their results. A collective of the group; what it
    returns travels pickled. For prompts over data ranks the group is that of the data ranks; `generate` itself shares
    its prompts out over the context ranks.
    """
    rank, ranks = group.rank(), group.size()
    mine = work(range(rank, count, ranks))
    if ranks == 1:
        return mine
    parts: list[list[Result]] = [[] for _ in range(ranks)]
    distributed.all_gather_object(parts, mine, group=group)
    return [parts[item % ranks][item // ranks] for item in range(count)]
