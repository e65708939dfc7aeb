"""Conversations, ranked answers and queries as tokens on disk: written once, then read in any order.

`<folder>/rows/<source>.<split>/` holds `rows.json` (what kind of rows, and the domains by number), `tokens.bin`
(int32, all rows back to back), `trained.bin` (a byte per token, conversations only) and `index/`, an array a file. A
row is a run of segments: a conversation's are `<s>` and then its turns, a ranked row's the prompt and the answers, a
query's the prompt. All of it is mapped into memory, so that the ranks of a node share it.

L tokens of a row; R rows, S segments of all rows.
"""

import itertools
import json
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from trainwright.runtime.data.errors import DataError

SPLITS = ("train", "held_out")
# A segment's role by number: `<s>`, the four roles of a turn, and what is no turn.
SEGMENT_ROLES = ("begin", "system", "user", "assistant", "environment", "none")
Kind = Literal["chat", "preference", "prompts"]
Tokens = NDArray[np.int32]
Row = TypeVar("Row")
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Conversation:
    """`tokens_L` begins with `<s>`; `trained_L` says which tokens the model learns to predict."""

    id: str
    domain: str
    tokens_L: Tokens
    trained_L: NDArray[np.bool_]


@dataclass(frozen=True)
class Ranked:
    """`prompt` is without `<s>` and ends with the generation prompt; answers come best first, each to `<|im_end|>`.

    `margin`: by how much the first answer's score should at least be above the others'; 0 if the data do not say.
    """

    id: str
    domain: str
    prompt: Tokens
    answers: tuple[Tokens, ...]
    margin: float


@dataclass(frozen=True)
class Query:
    """`prompt` is without `<s>` and ends with the generation prompt."""

    id: str
    domain: str
    prompt: Tokens


@dataclass(frozen=True)
class Turn:
    """Where in a conversation's tokens a turn lies, the newline after `<|im_end|>` included."""

    role: str
    start: int
    stop: int


class RowWriter:
    """Appends rows of one source and split. `finish` writes the index, without which there is nothing to read."""

    def __init__(self, folder: Path, source: str, split: str, kind: Kind) -> None:
        self._folder = rows_folder(folder, source, split)
        self._folder.mkdir(parents=True)
        self._kind = kind
        self._tokens = (self._folder / "tokens.bin").open("wb")
        self._trained = (self._folder / "trained.bin").open("wb") if kind == "chat" else None
        self._ids: list[bytes] = []
        self._domains: dict[str, int] = {}
        # Arrays, for there may be millions of rows.
        self._domain_R, self._margin_R, self._segments_R = array("i"), array("d"), array("q")
        self._lengths_S, self._roles_S = array("q"), array("B")

    def append(
        self,
        id_: str,
        domain: str,
        segments: Sequence[Tokens],
        *,
        roles: Sequence[str] = (),
        trained_L: NDArray[np.bool_] | None = None,
        margin: float = 0.0,
    ) -> None:
        """A row; a conversation's also has its segments' roles and which of its tokens are trained."""
        for segment in segments:
            self._tokens.write(np.ascontiguousarray(segment, dtype="<i4").tobytes())
        if self._trained is not None and trained_L is not None:
            self._trained.write(trained_L.astype(np.uint8).tobytes())
        self._ids.append(id_.encode())
        self._domain_R.append(self._domains.setdefault(domain, len(self._domains)))
        self._margin_R.append(margin)
        self._segments_R.append(len(segments))
        self._lengths_S.extend(len(segment) for segment in segments)
        self._roles_S.extend(SEGMENT_ROLES.index(role) for role in roles or ("none",) * len(segments))

    def copy(self, rows: "AnyRows", row: int) -> None:
        """Appends a row of others of the same kind."""
        trained_L = rows[row].trained_L if isinstance(rows, Conversations) else None
        segments, roles = rows.segments(row), rows.roles(row)
        self.append(rows.id(row), rows.domain(row), segments, roles=roles, trained_L=trained_L, margin=rows.margin(row))

    def finish(self) -> None:
        self._tokens.close()
        if self._trained is not None:
            self._trained.close()
        index = {
            "ids_R": np.array(self._ids, dtype=np.bytes_),
            "domain_R": np.array(self._domain_R, dtype=np.int32),
            "margin_R": np.array(self._margin_R, dtype=np.float64),
            "segment_R1": _starts(self._segments_R),  # the first segment of each row, and one more
            "token_S1": _starts(self._lengths_S),  # the first token of each segment, and one more
            "roles_S": np.array(self._roles_S, dtype=np.uint8),
        }
        (self._folder / "index").mkdir()
        for name, values in index.items():
            np.save(self._folder / "index" / f"{name}.npy", values)
        about = {"kind": self._kind, "domains": list(self._domains)}
        (self._folder / "rows.json").write_text(json.dumps(about, ensure_ascii=False) + "\n", encoding="utf-8")


def write_ranked(folder: Path, source: str, split: str, rows: Iterable[Ranked]) -> None:
    """`RankedRows(folder, source, split)` will give these rows, in this order."""
    writer = RowWriter(folder, source, split, "preference")
    for row in rows:
        writer.append(row.id, row.domain, (row.prompt, *row.answers), margin=row.margin)
    writer.finish()


def rows_folder(folder: Path, source: str, split: str) -> Path:
    return folder / "rows" / f"{source}.{split}"


class _Rows(Sequence[Row], Generic[Row]):
    """Rows by number, their tokens mapped into memory: opening reads the index alone."""

    _KIND: Kind

    def __init__(self, folder: Path, source: str, split: str) -> None:
        """Raises DataError if there are no rows of this kind."""
        place = rows_folder(folder, source, split)
        try:
            about = json.loads((place / "rows.json").read_bytes())
            names = ("ids_R", "domain_R", "margin_R", "segment_R1", "token_S1", "roles_S")
            index = {name: np.load(place / "index" / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in names}
        except FileNotFoundError:
            raise DataError(f"there are no rows of source `{source}` ({split}) in `{folder}`") from None
        if about["kind"] != self._KIND:
            raise DataError(f"source `{source}` has rows of kind `{about['kind']}`, not `{self._KIND}`")
        self.source, self.split = source, split
        self._domains: tuple[str, ...] = tuple(about["domains"])
        self._ids_R, self._domain_R, self._margin_R = index["ids_R"], index["domain_R"], index["margin_R"]
        self._roles_S, self._segment_R1, self._token_S1 = index["roles_S"], index["segment_R1"], index["token_S1"]
        self._tokens: Tokens = _mapped(place / "tokens.bin", np.int32)
        self._trained: NDArray[np.bool_] = _mapped(place / "trained.bin", np.bool_)

    def __len__(self) -> int:
        return len(self._ids_R)

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> list[Row]: ...
    def __getitem__(self, row: int | slice) -> Row | list[Row]:
        if isinstance(row, slice):
            return [self._read(number) for number in range(*row.indices(len(self)))]
        number = row + len(self) if row < 0 else row
        if not 0 <= number < len(self):
            raise IndexError(row)
        return self._read(number)

    @abstractmethod
    def _read(self, row: int) -> Row: ...

    def id(self, row: int) -> str:
        return bytes(self._ids_R[row]).decode()

    def domain(self, row: int) -> str:
        return self._domains[int(self._domain_R[row])]

    @property
    def lengths_R(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        lengths_R: NDArray[np.int64] = np.diff(self._token_S1[self._segment_R1])
        return lengths_R

    def by_domain(self, values: Mapping[str, int]) -> NDArray[np.int64]:
        """values_R: of each row's domain; 0 for one that is not named."""
        known = np.array([values.get(domain, 0) for domain in self._domains], dtype=np.int64)
        found: NDArray[np.int64] = known[self._domain_R] if len(known) else np.empty(0, np.int64)
        return found

    def _bounds(self, row: int) -> list[int]:
        """Where the row's segments begin in the file, and where the last one ends."""
        first, last = self._segment_R1[row], self._segment_R1[row + 1]
        bounds: list[int] = self._token_S1[first : last + 1].tolist()
        return bounds

    def margin(self, row: int) -> float:
        return float(self._margin_R[row])

    def roles(self, row: int) -> list[str]:
        """Of the row's segments."""
        numbers = self._roles_S[self._segment_R1[row] : self._segment_R1[row + 1]].tolist()
        return [SEGMENT_ROLES[number] for number in numbers]

    def segments(self, row: int) -> list[Tokens]:
        bounds = self._bounds(row)
        return [self._tokens[begin:end] for begin, end in itertools.pairwise(bounds)]


class Conversations(_Rows[Conversation]):
    """The conversations of one source and split, from the folder of a `conversations` stage."""

    _KIND = "chat"

    def _read(self, row: int) -> Conversation:
        bounds = self._bounds(row)
        part = slice(bounds[0], bounds[-1])
        return Conversation(self.id(row), self.domain(row), self._tokens[part], self._trained[part])

    def turns(self, row: int) -> list[Turn]:
        """The row's turns in order; together they are all of its tokens but `<s>`."""
        bounds = self._bounds(row)
        places = [bound - bounds[0] for bound in bounds[1:]]
        spans = zip(self.roles(row)[1:], itertools.pairwise(places), strict=True)
        return [Turn(role, start, stop) for role, (start, stop) in spans]


class RankedRows(_Rows[Ranked]):
    """The ranked answers of one source and split, from the folder of a `conversations` or `online` stage."""

    _KIND = "preference"

    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """answers_R, and the tokens of every prompt with each of its answers, row by row."""
        lengths_S = np.diff(self._token_S1)
        first_R = self._segment_R1[:-1]
        answers_R = np.diff(self._segment_R1) - 1
        prompts = np.repeat(lengths_S[first_R], answers_R)
        return answers_R, prompts + np.delete(lengths_S, first_R)

    def _read(self, row: int) -> Ranked:
        prompt, *answers = self.segments(row)
        return Ranked(self.id(row), self.domain(row), prompt, tuple(answers), self.margin(row))


class Queries(_Rows[Query]):
    """The queries of one source and split, from the folder of a `conversations` stage."""

    _KIND = "prompts"

    def _read(self, row: int) -> Query:
        (prompt,) = self.segments(row)
        return Query(self.id(row), self.domain(row), prompt)


AnyRows = Conversations | RankedRows | Queries
READERS: dict[str, type[Conversations] | type[RankedRows] | type[Queries]] = {
    "chat": Conversations,
    "preference": RankedRows,
    "prompts": Queries,
}


def _mapped(path: Path, dtype: type[Scalar]) -> NDArray[Scalar]:
    """The file as an array; an empty file cannot be mapped, and one that is not there has nothing."""
    if not path.exists() or not path.stat().st_size:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r").view(np.ndarray)


def _starts(counts: "array[int]") -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.array(counts, dtype=np.int64))])
