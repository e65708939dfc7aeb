"""Sources of rows, and small runs of the conversations stage over them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.align.data import golden

from trainwright.runtime.align.data import conversations
from trainwright.spec.plan import ConversationsStage, SourcePlan


@dataclass(frozen=True)
class Made:
    """The folder of a conversations stage, its ledger, what it said, and the rows that are not used."""

    folder: Path
    sources: dict[str, Any]
    said: list[str]

    @property
    def unused(self) -> list[dict[str, Any]]:
        lines = (self.folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file()}


def _source(name: str, path: str, kind: str, **changes: Any) -> SourcePlan:
    values: dict[str, Any] = {
        "language": "en",
        "license": "ours",
        "format": "auto",
        "text_key": "text",
        "include": (),
        "exclude": (),
        "max_size_bytes": None,
        "files": None,
        "size_bytes": None,
        "digest": None,
    }
    return SourcePlan(name=name, path=path, kind=kind, **(values | changes))


@pytest.fixture(scope="session")
def source() -> Callable[..., SourcePlan]:
    """Makes a SourcePlan of a name, a path, a kind and whatever differs from the usual."""
    return _source


@pytest.fixture(scope="session")
def run_stage(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Runs a conversations stage over sources into a new folder, with the tokenizer of the golden chats."""

    def run(*sources: SourcePlan, root: Path, **changes: Any) -> Made:
        out = tmp_path_factory.mktemp("conversations")
        values = {"held_out": 0.0, "code_newline": True, "bad_rows": 0.0, "seed": 1, "workers": 1} | changes
        stage = ConversationsStage(
            name="conversations", needs=("tokenizer",), sources=sources, vocab_size=800, **values
        )
        said: list[str] = []
        summary: Any = conversations.run(
            stage, root=root, inputs={"tokenizer": golden.FOLDER}, out=out, progress=said.append
        )
        assert json.loads((out / "ledger.json").read_bytes()) == summary["sources"]
        return Made(out, summary["sources"], said)

    return run


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]} | more


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
