"""How much of a card's memory a plan may count on: fragmentation and what else no formula sees take the rest.

Fujii et al. 2024 (arXiv 2411.06465): of 454 runs on A100 and H100, none that was estimated at 80 % or less of the
capacity ran out of memory. From there to 90 % it mostly fits; beyond, it is a gamble.
"""

SAFE = 0.8
TIGHT = 0.9


def verdict(share: float) -> str:
    """Whether a rank that is planned to take this share of its card fits, as far as can be said beforehand."""
    if share <= SAFE:
        return "yes"
    if share <= TIGHT:
        return "probably"
    return "barely" if share <= 1 else "no"
