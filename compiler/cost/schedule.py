"""One training step's pipeline, event by event: when each pipeline rank works on which micro-batch, and when it idles.

Each rank works through its passes in the schedule's order (`orders.py`). A pass starts when the rank is free and its
input is there. How inputs travel between ranks is Megatron-core's way:

blocking (`overlapped=False`; what our runtime does): after its passes a rank sends their results and receives the next
passes' inputs, and stands still until all are through. A message passes when both of its ranks have come to it, and
takes `transfer_s`. 1F1B exchanges after each pass: first out, then in, between two forward or two backward passes, and
both at once where the direction turns. Interleaved exchanges after each pair of F and B, all four messages at once.

overlapped (Megatron's `overlap_p2p_comm`; here also gpipe and the zero-bubble schedules): a result leaves when its pass
ends, arrives `transfer_s` later, and holds nobody up but who waits for it.

Messages do not slow each other down, and links between neighbours are alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trainwright.compiler.cost.orders import Kind, Pass, in_flight, order, part_of, warmup
from trainwright.spec.plan import ChunkTime

_BLOCKING = ("1f1b", "interleaved")  # what Megatron-core can run without overlapped transfers


class Task(NamedTuple):
    """One pass on one pipeline rank, in seconds from the step's start."""

    kind: Kind
    pipeline_rank: int
    chunk: int
    micro_batch: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The pipeline's part of a step: from its first forward to its last backward pass."""

    schedule: str
    pipeline: int
    chunks: int  # a rank
    micro_batches: int
    tasks: tuple[Task, ...]  # rank by rank, each in its order
    span_s: float
    exposed_s: float  # how much shorter the span were if transfers took no time
    busy_s: tuple[float, ...]  # computing, of each rank
    in_flight: tuple[float, ...]  # most micro-batches kept at once on each rank, in units of all its layers

    @property
    def idle_s(self) -> tuple[float, ...]:
        """Seconds of the span in which each rank computes nothing: it waits or transfers."""
        return tuple(self.span_s - busy for busy in self.busy_s)

    @property
    def bubble(self) -> float:
        """Idle time as a share of the span, over all ranks."""
        return sum(self.idle_s) / (self.span_s * self.pipeline) if self.span_s else 0.0

    @property
    def longest_rank_s(self) -> float:
        """The longest that any rank takes from its own first to its own last pass.

        ZB-2p and ZB-V end as staggered as they begin: they have no bubble only if a rank's optimizer does not wait
        for the other ranks (the paper's post-validation), and then this is what a step takes.
        """
        return max(tasks[-1].end_s - tasks[0].start_s for tasks in self.by_rank())

    def by_rank(self) -> tuple[tuple[Task, ...], ...]:
        """The tasks of each rank, in their order."""
        count = len(self.tasks) // self.pipeline
        return tuple(self.tasks[rank * count : (rank + 1) * count] for rank in range(self.pipeline))


def timeline(
    chunks: Sequence[ChunkTime], micro_batches: int, schedule: str, transfer_s: float, *, overlapped: bool = False
) -> Timeline:
    """The pipeline of one step; `chunks` has the times of every chunk of every rank, in any order.

    For `zb-v` they lie as a V: the second chunk of rank 0 has the model's last layers. Raises ValueError if the
    schedule cannot have so many ranks, chunks or micro-batches.
    """
    times = {(time.pipeline_rank, time.chunk): time for time in chunks}
    p = 1 + max(rank for rank, _ in times)
    v = 1 + max(chunk for _, chunk in times)
    if len(chunks) != len(times) or len(times) != p * v:
        raise ValueError(f"{len(chunks)} times are not those of {p} ranks with {v} chunks each")
    orders = [order(schedule, rank, p, v, micro_batches) for rank in range(p)]
    routes = _routes(schedule, p, v, micro_batches)
    durations = [_durations(schedule, times, rank, v) for rank in range(p)]
    if schedule in _BLOCKING and not overlapped:
        programs = [
            list(_blocking(_turns(passes, warmup(rank, p, v, micro_batches), schedule), durations[rank], routes[rank]))
            for rank, passes in enumerate(orders)
        ]
    else:
        programs = [list(_overlapped(*each)) for each in zip(orders, durations, routes, strict=True)]
    starts, span_s = _simulate(programs, _inputs(p * v, micro_batches), transfer_s)
    exposed_s = span_s - _simulate(programs, _inputs(p * v, micro_batches), 0.0)[1] if transfer_s else 0.0
    tasks = tuple(
        Task(kind, rank, chunk, micro_batch, start_s, start_s + durations[rank][kind, chunk])
        for rank, passes in enumerate(orders)
        for (kind, chunk, micro_batch), start_s in zip(passes, starts[rank], strict=True)
    )
    return Timeline(
        schedule=schedule,
        pipeline=p,
        chunks=v,
        micro_batches=micro_batches,
        tasks=tasks,
        span_s=span_s,
        exposed_s=exposed_s,
        busy_s=tuple(micro_batches * sum(own.values()) for own in durations),
        in_flight=tuple(in_flight(passes) / v for passes in orders),
    )


def _durations(
    schedule: str, times: dict[tuple[int, int], ChunkTime], rank: int, chunks: int
) -> dict[tuple[Kind, int], float]:
    """Seconds of each kind of pass in each chunk of the rank."""
    durations: dict[tuple[Kind, int], float] = {}
    for chunk in range(chunks):
        time = times[rank, chunk]
        durations["F", chunk] = time.forward_s
        durations["B", chunk] = time.backward_s
        if schedule.startswith("zb-"):
            durations["B", chunk] -= time.weight_s
            durations["W", chunk] = time.weight_s
    return durations


# --- messages --------------------------------------------------------------------------------------------------------
# A message is what a pass needs to start, numbered so that message + micro-batch is one for each micro-batch: first the
# inputs of all forward passes, part of the model by part, then of all backward passes, then two blocks without a part:
# inputs that are always there, and results that nobody waits for.


@dataclass(frozen=True, slots=True)
class _Route:
    needs: int
    from_afar: bool
    gives: int
    goes_afar: bool


def _inputs(parts: int, micro_batches: int) -> list[float | None]:
    """When each message is there; None: not yet."""
    waited: list[float | None] = [None] * (2 * parts * micro_batches)
    return waited + [0.0] * micro_batches + [None] * micro_batches


def _routes(schedule: str, pipeline: int, chunks: int, m: int) -> list[dict[tuple[Kind, int], _Route]]:
    """For each rank, what its passes of micro-batch 0 need and give."""
    places = {part_of(schedule, r, c, pipeline): (r, c) for r in range(pipeline) for c in range(chunks)}
    last = pipeline * chunks - 1
    backward, always, nobody = (last + 1) * m, 2 * (last + 1) * m, (2 * (last + 1) + 1) * m
    routes: list[dict[tuple[Kind, int], _Route]] = [{} for _ in range(pipeline)]
    for part, (rank, chunk) in places.items():
        before, after = part > 0, part < last
        far_before = before and places[part - 1][0] != rank
        far_after = after and places[part + 1][0] != rank
        routes[rank]["F", chunk] = _Route(
            needs=part * m if before else always,
            from_afar=far_before,
            gives=(part + 1) * m if after else backward + last * m,
            goes_afar=far_after,
        )
        routes[rank]["B", chunk] = _Route(
            needs=backward + part * m,
            from_afar=far_after,
            gives=backward + (part - 1) * m if before else nobody,
            goes_afar=far_before,
        )
        routes[rank]["W", chunk] = _Route(needs=always, from_afar=False, gives=nobody, goes_afar=False)
    return routes


# --- programs: what a rank does, in order ----------------------------------------------------------------------------
# A step of a program is a pass (the message it needs, the message it gives, whether a transfer lies before that is
# there, its duration) or an exchange (None, its messages).

_Step = tuple[int, int, bool, float] | tuple[None, tuple[int, ...]]


def _overlapped(
    passes: list[Pass], durations: dict[tuple[Kind, int], float], routes: dict[tuple[Kind, int], _Route]
) -> Iterator[_Step]:
    for kind, chunk, micro_batch in passes:
        route = routes[kind, chunk]
        yield route.needs + micro_batch, route.gives + micro_batch, route.goes_afar, durations[kind, chunk]


def _turns(passes: list[Pass], warmup: int, schedule: str) -> Iterator[tuple[list[Pass], bool]]:
    """The passes between two exchanges; and whether what precedes them leaves before their inputs come in.

    1F1B: one pass, and first out, then in, between passes of a kind. Interleaved: F and B together when warm. Either:
    first out, then in, where all forward passes are warm-up.
    """
    never_steady = 2 * warmup == len(passes)
    before: Kind | None = None
    at = 0
    while at < len(passes):
        steady = schedule == "interleaved" and warmup <= at < len(passes) - warmup
        turn = passes[at : at + 2 if steady else at + 1]
        alike = schedule == "1f1b" and before == turn[0][0]
        yield turn, alike or (never_steady and at == warmup)
        before = turn[-1][0]
        at += len(turn)


def _blocking(
    turns: Iterator[tuple[list[Pass], bool]],
    durations: dict[tuple[Kind, int], float],
    routes: dict[tuple[Kind, int], _Route],
) -> Iterator[_Step]:
    sends: tuple[int, ...] = ()
    for turn, sends_first in turns:
        own = [(routes[kind, chunk], durations[kind, chunk], micro_batch) for kind, chunk, micro_batch in turn]
        receives = tuple(route.needs + micro_batch for route, _, micro_batch in own if route.from_afar)
        exchanges = (sends, receives) if sends_first else (sends + receives,)
        for messages in exchanges:
            if messages:
                yield None, messages
        for route, duration, micro_batch in own:
            yield route.needs + micro_batch, route.gives + micro_batch, False, duration
        sends = tuple(route.gives + micro_batch for route, _, micro_batch in own if route.goes_afar)
    if sends:
        yield None, sends


def _simulate(
    programs: list[list[_Step]], there: list[float | None], transfer_s: float
) -> tuple[list[list[float]], float]:
    """When each pass of each program starts, and when the last one ends; `there`: when each message is, filled in.

    Raises RuntimeError if ranks wait for each other for ever: the order is none that can be executed.
    """
    ranks = range(len(programs))
    clock = [0.0 for _ in ranks]
    place = [0 for _ in ranks]
    starts: list[list[float]] = [[] for _ in ranks]
    waiting: dict[int, int] = {}  # message -> the rank that cannot go on without it
    posted: dict[int, tuple[int, float]] = {}  # message -> the rank that has come to its exchange, and when
    missing = [0 for _ in ranks]  # messages of the rank's exchange whose other side has not come
    runnable = list(ranks)
    while runnable:
        rank = runnable.pop()
        now, at, program, begun = clock[rank], place[rank], programs[rank], starts[rank]
        while at < len(program):
            step = program[at]
            if step[0] is None:
                came, messages = now, step[1]
                at += 1
                for message in messages:
                    other = posted.pop(message, None)
                    if other is None:
                        posted[message] = rank, came
                        missing[rank] += 1
                        continue
                    partner, since = other
                    through = (since if since > came else came) + transfer_s
                    there[message] = through
                    if through > now:
                        now = through
                    if through > clock[partner]:
                        clock[partner] = through
                    missing[partner] -= 1
                    if missing[partner] == 0:
                        runnable.append(partner)
                if missing[rank]:
                    break
            else:
                needs, gives, transferred, duration = step
                arrival = there[needs]
                if arrival is None:
                    waiting[needs] = rank
                    break
                if arrival > now:
                    now = arrival
                begun.append(now)
                now += duration
                there[gives] = now + transfer_s if transferred else now
                if gives in waiting:
                    runnable.append(waiting.pop(gives))
                at += 1
        clock[rank], place[rank] = max(now, clock[rank]), at
    stuck = [rank for rank in ranks if place[rank] < len(programs[rank]) or missing[rank]]
    if stuck:
        raise RuntimeError(f"ranks {stuck} wait for each other for ever")
    return starts, max(clock)
