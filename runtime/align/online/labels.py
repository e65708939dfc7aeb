"""Labels: which answer of a candidate is the better one, from files of people or from a program.

What is read, by file: JSON lines of {"id", "choice"} with 0 or 1 for the first or the second answer, or "tie"; JSON
lines of the preference form ({"prompt", "chosen", "rejected", "domain"}), which need no candidate; and Label Studio's
JSON export of a pairwise project, whose tasks carry the candidate's `id` in `data` and whose results are `left` or
`right`. Two labels of one candidate that contradict each other count as a tie.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainwright.runtime.align.data.messages import BadRow, PreferenceRow, parse_row
from trainwright.runtime.align.online.candidates import Candidate
from trainwright.runtime.data.errors import DataError

TIE = "tie"
_CHOICES = {0: 0, 1: 1, "0": 0, "1": 1, "left": 0, "right": 1, TIE: None}


@dataclass
class Labels:
    """Choices by candidate, rows that stand for themselves, and how many labels are of no candidate of the round."""

    choices: dict[str, int | None] = field(default_factory=dict)  # None: a tie
    rows: list[PreferenceRow] = field(default_factory=list)
    foreign: int = 0

    def add(self, id_: str, choice: int | None) -> None:
        self.choices[id_] = choice if self.choices.get(id_, choice) == choice else None


def read_labels(paths: Iterable[Path], known: Iterable[str]) -> Labels:
    """All labels of these files; `known` are the candidates' ids. Raises DataError with file and line."""
    labels, ids = Labels(), set(known)
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the labels {path} cannot be read: {error}") from None
        rows = _label_studio(path, text) if text.lstrip().startswith("[") else _lines(path, text)
        for place, row in rows:
            take(labels, ids, row, place)
    return labels


def take(labels: Labels, ids: set[str], row: Mapping[str, Any], place: str) -> None:
    """One row of labels, from `place`. Raises DataError."""
    if "id" in row and "choice" in row:
        choice = row["choice"]
        if isinstance(choice, bool) or choice not in _CHOICES:
            raise DataError(f'{place}: `choice` is {choice!r}, and not 0, 1 or "tie"')
        if row["id"] in ids:
            labels.add(str(row["id"]), _CHOICES[choice])
        else:
            labels.foreign += 1
        return
    try:
        parsed = parse_row(json.dumps(row).encode(), "preference")
    except BadRow as error:
        raise DataError(f"{place}: neither a label (`id`, `choice`) nor a preference: {error}") from None
    assert isinstance(parsed, PreferenceRow)
    labels.rows.append(parsed)


def agreement(candidates: Sequence[Candidate], choices: Mapping[str, int | None]) -> float | None:
    """The share of judged candidates on which the reward model's order is the labels'; None if none was judged."""
    judged = [(each, choice) for each in candidates if (choice := choices.get(each.id)) is not None]
    if not judged:
        return None
    right = sum(each.answers[choice].score > each.answers[1 - choice].score for each, choice in judged)
    return right / len(judged)


def _lines(path: Path, text: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise DataError(f"{place}: not a JSON object")
        yield place, row


def _label_studio(path: Path, text: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        tasks = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    for number, task in enumerate(tasks, start=1):
        place = f"{path}, task {number}"
        try:
            id_ = task["data"]["id"]
            given = [result for each in task["annotations"] for result in each.get("result", [])]
        except (KeyError, TypeError):
            raise DataError(f"{place}: a task of Label Studio's export has `data.id` and `annotations`") from None
        for result in given:
            if result.get("type") == "pairwise":
                yield place, {"id": id_, "choice": result["value"]["selected"]}
