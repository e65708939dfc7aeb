"""Critic and reward model on ranks of their own: two worlds of torch.distributed in one launch.

The first ranks, as many as the actor's layout has, are PPO's world; the others are the appraisers', who wait for tasks.
What is asked and answered passes through the launcher's key-value store, from the first rank of one world to the first
of the other, and is shared out inside each. Tasks are done in the order in which they are asked, while PPO's world goes
on until it wants a result.
"""

import base64
import pickle
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch import distributed
from torch._C._distributed_c10d import PrefixStore, Store

from trainwright.runtime import host
from trainwright.runtime.align.ppo.appraisal import Appraisal, Later, Task
from trainwright.runtime.train import parallel
from trainwright.spec.plan import PpoStage

_PATIENCE = timedelta(hours=12)  # of one world with the other; one that dies takes it along, as the launcher ends all
_PIECE = 1 << 22  # characters of a value: torch's store refuses more than 8 MiB


@dataclass(frozen=True)
class Place:
    """This process among all of a launch, and the store through which all see each other."""

    store: Store
    rank: int

    @classmethod
    def of_launch(cls) -> "Place":
        """As torchrun's environment says."""
        from torch.distributed.rendezvous import rendezvous

        store, rank, _ = next(iter(rendezvous("env://")))
        return cls(store, rank)


def join(stage: PpoStage, place: Place) -> bool:
    """This process is in its world; says whether that is PPO's. Raises UnsupportedLayoutError."""
    own = stage.layout.world_size
    with_actor = place.rank < own
    layout, first = (stage.layout, 0) if with_actor else (stage.critic_layout, own)
    distributed.init_process_group(
        host.backend(),
        store=PrefixStore("actor" if with_actor else "critic", place.store),
        rank=place.rank - first,
        world_size=layout.world_size,
        timeout=_PATIENCE,
    )
    parallel.initialize(layout, seed=stage.seed, first_device=first)
    return with_actor


class Elsewhere:
    """The appraisers, as PPO's world sees them."""

    def __init__(self, store: Store) -> None:
        self._mail = _Mail(store)
        self._asked = 0

    def ask(self, task: Task, *given: Any) -> Later:
        number = self._asked
        self._asked += 1
        self._mail.send(f"task {number}", (task, given))
        return lambda: self._mail.take(f"result {number}")

    def dismiss(self, last_word: Any) -> None:
        """They leave, with the last word."""
        self._mail.send(f"task {self._asked}", (None, last_word))


def serve(appraisal: Appraisal, store: Store) -> Any:
    """All that is asked is done, until PPO's world dismisses its appraisers; returns its last word."""
    mail = _Mail(store)
    number = 0
    while True:
        task, given = mail.take(f"task {number}")
        if task is None:
            return given
        mail.send(f"result {number}", appraisal.do(task, *given))
        number += 1


class _Mail:
    """Messages between the first ranks of two worlds; every rank of a world has what its first one takes."""

    def __init__(self, store: Store) -> None:
        self._store = PrefixStore("mail", store)
        self._store.set_timeout(_PATIENCE)

    def send(self, name: str, content: Any) -> None:
        if distributed.get_rank() == 0:
            data = base64.b64encode(pickle.dumps(content)).decode()
            starts = range(0, len(data), _PIECE)
            for number, start in enumerate(starts):
                self._store.set(f"{name}/{number}", data[start : start + _PIECE])
            self._store.set(name, str(len(starts)))

    def take(self, name: str) -> Any:
        """Waits for it. It can be taken once. A collective of the world."""
        content = [None]
        if distributed.get_rank() == 0:
            pieces = [f"{name}/{number}" for number in range(int(self._store.get(name)))]
            content = [pickle.loads(base64.b64decode(b"".join(map(self._store.get, pieces))))]
            for key in (name, *pieces):
                self._store.delete_key(key)
        if distributed.get_world_size() > 1:
            distributed.broadcast_object_list(content, src=0)
        return content[0]
