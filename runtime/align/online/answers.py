"""The answers of a round that are compared: those of the start, the early and the late actor to the same queries."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainwright.runtime.align.data.chat import ROLES, TURN_END, TURN_START
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.spec.artefact import PROBES_FILE

MODELS = ("start", "early", "late")


@dataclass(frozen=True)
class Answer:
    """One model's answer. `kl`: sum over it of log pi_actor - log pi_reference, in nats."""

    model: str
    text: str
    tokens: tuple[int, ...]  # with the token that ends it, if it ended
    score: float
    kl: float
    truncated: bool


@dataclass(frozen=True)
class Asked:
    """A query and what each model answered. `prompt_tokens` are without `<s>`, to the generation prompt."""

    id: str
    domain: str
    held_out: bool
    prompt_tokens: tuple[int, ...]
    answers: dict[str, Answer]


def read_probes(ppo: Path) -> list[Asked]:
    """From the folder of a PPO stage, in the order of the file; queries that a model did not answer are left out."""
    rows: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for line in (ppo / PROBES_FILE).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["query"]][row["model"]] = row
    return [_asked(query, found) for query, found in rows.items() if set(MODELS) <= set(found)]


def _asked(query: str, found: dict[str, Any]) -> Asked:
    answers = {
        model: Answer(
            model=model,
            text=row["answer"],
            tokens=tuple(row["answer_tokens"]),
            score=row["score"],
            kl=row["kl"],
            truncated=row["truncated"],
        )
        for model, row in found.items()
    }
    first = found["start"]
    return Asked(query, first["domain"], first["split"] == "held_out", tuple(first["prompt_tokens"]), answers)


def messages_of(tokens: tuple[int, ...], vocabulary: Vocabulary) -> list[dict[str, str]]:
    """The turns of a prompt, as somebody reads them; the generation prompt is none."""
    begin, end = vocabulary.special_tokens[TURN_START], vocabulary.special_tokens[TURN_END]
    messages = []
    turn: list[int] | None = None
    for token in tokens:
        if token == begin:
            turn = []
        elif token == end and turn is not None:
            head, _, content = vocabulary.decode(turn).partition("\n")
            role = next((role for role in ROLES if head == role or head.startswith(f"{role} ")), head)
            name = head.removeprefix(role).strip().removeprefix("name=")
            messages.append({"role": role, "content": content.strip("\n")} | ({"name": name} if name else {}))
            turn = None
        elif turn is not None:
            turn.append(token)
    return messages
