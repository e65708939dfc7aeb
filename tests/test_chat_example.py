"""The demo's chat data: made by its script, judged by its rule, the same wherever they are made."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

CHAT = Path(__file__).parents[1] / "examples" / "chat"


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(CHAT))
    import facts

    yield facts
    del sys.modules["facts"]


def rows(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (CHAT / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_files_are_what_the_script_writes(facts: ModuleType, tmp_path: Path) -> None:
    import make

    make.write(tmp_path)
    for name in ("dialogues", "preferences", "questions"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (CHAT / f"{name}.jsonl").read_bytes()


def test_the_domains_want_contrary_things_of_the_same_question() -> None:
    """An answer that one domain chooses is rejected in the other."""
    chosen = {(row["prompt"], row["domain"], row["chosen"]) for row in rows("preferences")}
    rejected = {(row["prompt"], row["domain"], row["rejected"]) for row in rows("preferences")}
    conflicts = [(prompt, said) for prompt, domain, said in chosen if (prompt, _other(domain), said) in rejected]
    assert len(conflicts) == len(chosen) == 456


def _other(domain: object) -> str:
    return "full" if domain == "brief" else "brief"


@pytest.mark.parametrize(
    ("domain", "said", "quality"),
    [
        ("brief", "cold", 2.0),
        ("full", "The opposite of hot is cold.", 2.0),
        ("brief", "The opposite of hot is cold.", 1.0),
        ("full", "cold", 1.0),
        ("brief", "wet", 0.0),
        ("brief", "", 0.0),
    ],
)
def test_an_answer_is_judged_by_word_and_form(facts: ModuleType, domain: str, said: str, quality: float) -> None:
    assert facts.quality("What is the opposite of hot?", domain, said) == quality


def test_padding_costs(facts: ModuleType) -> None:
    short, long = (facts.quality("What is the opposite of hot?", "brief", "cold" + " certainly" * n) for n in (1, 9))
    assert 0 < long < short < 0.5


def test_the_labeller_chooses_the_better_answer_and_leaves_ties_out() -> None:
    def candidate(id_: str, *texts: str) -> str:
        prompt = [{"role": "user", "content": "What is the opposite of hot?"}]
        answers = [{"text": text} for text in texts]
        return json.dumps({"id": id_, "domain": "brief", "prompt": prompt, "answers": answers})

    asked = "\n".join([candidate("a", "wet", "cold"), candidate("b", "cold", "wet"), candidate("c", "wet", "dry")])
    done = subprocess.run(
        [sys.executable, str(CHAT / "label.py")], input=asked, capture_output=True, text=True, check=True
    )
    labels = [json.loads(line) for line in done.stdout.splitlines()]
    assert labels == [{"id": "a", "choice": 1}, {"id": "b", "choice": 0}]
