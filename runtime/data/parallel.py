"""A function over many tasks on all cores: results in the order of the tasks, however many workers there are."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from trainwright.runtime.data.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 2  # tasks per worker that are under way or wait to be taken: what bounds the memory


def ordered_map(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    initialise: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Each task's result, in order; tasks are drawn only as fast as results are taken.

    `workers` 0 means one per core; with one, or one task, everything happens in this process. `function` and
    `initialise` must be importable. Raises what `function` raises; DataError if a worker process dies.
    """
    workers = workers or os.cpu_count() or 1
    source = iter(tasks)
    first = list(itertools.islice(source, 2))
    source = itertools.chain(first, source)
    if workers == 1 or len(first) < 2:
        if initialise is not None:
            initialise(*arguments)
        yield from map(function, source)
        return
    # Spawned, not forked: the parent may hold threads (torch, an object store's client), which a fork would break.
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (initialise, arguments))
    try:
        pending: deque[Future[Result]] = deque()
        for task in source:
            pending.append(pool.submit(function, task))
            if len(pending) > _AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise DataError("a worker process died: killed, or out of memory (fewer `data.workers` need less)") from None
    except BaseException:  # nobody wants the results any more, so nobody waits for the tasks under way
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(initialise: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent alone answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initialise is not None:
        initialise(*arguments)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, which would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
