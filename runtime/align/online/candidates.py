"""Pairs of answers for somebody to judge: `candidates.jsonl`.

A row: {"id", "path" ("fast" or "slow"), "round", "query", "domain", "prompt" (messages), "answers": two of {"from"
("start", "early" or "late"), "text", "score"}, "why" (what the pair shows of the round's exploits)}. The order of the
two answers says nothing: it follows from the id. Fast path: late against early answers, those first that show an
exploit and whose score rose most. Slow path: pairs among start, early and late.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from trainwright.runtime.align.online.answers import MODELS, Answer, Asked, messages_of
from trainwright.runtime.align.online.exploits import Exploit
from trainwright.runtime.data.vocabulary import Vocabulary

CANDIDATES_FILE = "candidates.jsonl"


@dataclass(frozen=True)
class Candidate:
    """Two answers to a query, in the order in which they are shown."""

    path: str
    round: int
    asked: Asked
    answers: tuple[Answer, Answer]
    why: tuple[str, ...]

    @property
    def id(self) -> str:
        """The same for the same query and texts, so that labels outlive a repeated round."""
        texts = sorted(answer.text for answer in self.answers)
        return _digest("\0".join((self.asked.id, self.asked.domain, *texts)))

    def plain(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """As the file has it."""
        return {
            "id": self.id,
            "path": self.path,
            "round": self.round,
            "query": self.asked.id,
            "domain": self.asked.domain,
            "prompt": messages_of(self.asked.prompt_tokens, vocabulary),
            "answers": [{"from": answer.model, "text": answer.text, "score": answer.score} for answer in self.answers],
            "why": list(self.why),
        }


def choose_candidates(
    asked: Sequence[Asked], exploits: Sequence[Exploit], *, round_: int, fast: int, slow: int
) -> list[Candidate]:
    """At most `fast` and `slow` pairs of each path; answers that read the same are no pair."""
    chosen = sorted(_fast(asked, exploits, round_), key=lambda each: (-len(each.why), -_risen(each), each.id))[:fast]
    known = {each.id for each in chosen}
    rest = {each.id: each for each in _slow(asked, round_) if each.id not in known}
    return chosen + [rest[id_] for id_ in sorted(rest)][:slow]


def _fast(asked: Sequence[Asked], exploits: Sequence[Exploit], round_: int) -> Iterator[Candidate]:
    for each in asked:
        early, late = each.answers["early"], each.answers["late"]
        if early.text.strip() != late.text.strip():
            why = tuple(exploit.says for exploit in exploits if exploit.shows_in(early.text, late.text))
            yield _pair("fast", round_, each, early, late, why)


def _slow(asked: Sequence[Asked], round_: int) -> Iterator[Candidate]:
    for each in asked:
        for one, other in combinations(MODELS, 2):
            first, second = each.answers[one], each.answers[other]
            if first.text.strip() != second.text.strip():
                yield _pair("slow", round_, each, first, second, ())


def _pair(path: str, round_: int, asked: Asked, one: Answer, other: Answer, why: tuple[str, ...]) -> Candidate:
    swapped = int(_digest(f"{asked.id}\0{one.text}\0{other.text}")[:2], 16) % 2
    return Candidate(path, round_, asked, (other, one) if swapped else (one, other), why)


def _risen(candidate: Candidate) -> float:
    scores = {answer.model: answer.score for answer in candidate.answers}
    return scores["late"] - scores["early"]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
