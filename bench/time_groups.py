"""Where a training step's time goes, by what it is spent on: torch.profiler's events under scopes of our choice.

Forward operators belong to the innermost scope around them. Backward operators run outside of any module, but autograd
gives a backward node the sequence number of the forward operator it belongs to, and so its scope. Products of matrices
are known by their operator.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

REST = "rest"
PRODUCTS = "matrix products"
GRADIENTS = "gradient accumulation"
_MARK = "group:"
_PRODUCT_OPERATORS = frozenset({"aten::mm", "aten::addmm"})
_BACKWARD = "autograd::engine::evaluate_function"


def scoped(group: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its time counted under `group`."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(_MARK + group):
            return function(*args, **kwargs)

    return call


@contextmanager
def modules_scoped(model: nn.Module, group_of: Callable[[nn.Module], str | None]) -> Iterator[None]:
    """Inside the block, the forward of every module that has a group is counted under it."""
    open_scopes: list[Any] = []

    def enter(group: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            open_scopes.append(record_function(_MARK + group))
            open_scopes[-1].__enter__()

        return hook

    def leave(*_: object) -> None:
        open_scopes.pop().__exit__(None, None, None)

    hooks = []
    for module in model.modules():
        group = group_of(module)
        if group is not None:
            hooks += [module.register_forward_pre_hook(enter(group)), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def milliseconds_by_group(step: Callable[[], object], steps: int) -> dict[str, float]:
    """Milliseconds a step under each group, the profiler's own cost included, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            scoped(REST, step)()
    events = profiler.events()
    assert events is not None
    forward: dict[int, str] = {}
    for event in events:
        if event.sequence_nr >= 0 and not _is_backward(event):
            forward.setdefault(event.sequence_nr, _scope(event, {}))
    spent: Counter[str] = Counter()
    for event in events:
        scope = _scope(event, forward)
        if scope:
            spent[scope] += event.self_cpu_time_total
    return {group: round(us / 1000 / steps, 3) for group, us in spent.most_common()}


def _is_backward(event: FunctionEvent) -> bool:
    return any(ancestor.name.startswith(_BACKWARD) for ancestor in _upwards(event))


def _scope(event: FunctionEvent, forward: dict[int, str]) -> str:
    """The group of an event; empty if it is outside of every scope."""
    if event.name in _PRODUCT_OPERATORS:  # some are called outside of any module
        return PRODUCTS
    for ancestor in _upwards(event):
        if ancestor.name.startswith(_MARK):
            return ancestor.name.removeprefix(_MARK)
        if ancestor.name.startswith(_BACKWARD):
            if "AccumulateGrad" in ancestor.name:
                return GRADIENTS
            if ancestor.sequence_nr in forward:
                return forward[ancestor.sequence_nr]
    return ""


def _upwards(event: FunctionEvent) -> Iterator[FunctionEvent]:
    current: FunctionEvent | None = event
    while current is not None:
        yield current
        current = current.cpu_parent
