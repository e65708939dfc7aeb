"""Writes the demo's conversations, preferences and questions: `python examples/chat/make.py`.

dialogues.jsonl     both forms of each answer, for SFT
preferences.jsonl   in each domain its own form against the other, and the right word against a wrong one
questions.jsonl     what PPO asks: two topics in each domain
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facts import TOPICS, answer

DOMAINS = ("brief", "full")
ASKED_IN = {"opposites": "brief", "young": "brief", "colours": "full", "after": "full"}
HERE = Path(__file__).parent


def questions() -> Iterator[tuple[str, str, str]]:
    """Topic, thing and each form of the question."""
    for topic, known in TOPICS.items():
        for thing in known.answers:
            for form in known.asks:
                yield topic, thing, form.format(thing=thing)


def dialogues() -> Iterator[dict[str, Any]]:
    for topic, thing, question in questions():
        for domain in DOMAINS:
            yield {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer(topic, thing, domain)},
                ]
            }


def preferences(draw: random.Random) -> Iterator[dict[str, Any]]:
    for topic, thing, question in questions():
        others = sorted(set(TOPICS[topic].answers.values()) - {TOPICS[topic].answers[thing]})
        for domain, other in (DOMAINS, DOMAINS[::-1]):
            wanted = answer(topic, thing, domain)
            row = {"prompt": question, "domain": domain, "chosen": wanted}
            yield {**row, "rejected": answer(topic, thing, other)}
            yield {**row, "rejected": answer(topic, thing, domain, draw.choice(others))}


def asked() -> Iterator[dict[str, Any]]:
    for topic, _, question in questions():
        yield {"prompt": question, "domain": ASKED_IN[topic]}


def write(folder: Path) -> None:
    """The three files, in an order of their own."""
    files = {"dialogues": dialogues(), "preferences": preferences(random.Random(1)), "questions": asked()}
    for name, rows in files.items():
        shuffled = list(rows)
        random.Random(2).shuffle(shuffled)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in shuffled]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(HERE)
