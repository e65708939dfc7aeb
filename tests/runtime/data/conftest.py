"""Sources, stages and small runs of them for the tests of the data stages."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainwright.runtime.data import ingest, tokenize, tokenizer
from trainwright.runtime.data.document import Document, documents_path, read_documents
from trainwright.spec.plan import IngestStage, SourcePlan, TokenizerStage, TokenizeStage

EXAMPLES = Path(__file__).parents[3] / "examples"


def _source(name: str, path: str, **changes: Any) -> SourcePlan:
    values: dict[str, Any] = {
        "name": name,
        "path": path,
        "kind": "text",
        "language": "en",
        "license": "public domain",
        "format": "auto",
        "text_key": "text",
        "include": (),
        "exclude": (),
        "max_size_bytes": None,
        "files": None,
        "size_bytes": None,
        "digest": None,
    }
    return SourcePlan(**values | changes)


def _tokenizer_stage(**changes: Any) -> TokenizerStage:
    values: dict[str, Any] = {
        "name": "tokenizer",
        "needs": ("ingest",),
        "path": None,
        "digest": None,
        "algorithm": "bpe",
        "vocab_size": 1024,
        "mixture": {"novels": 0.6, "poems": 0.1, "code": 0.3},
        "byte_fallback": True,
        "split_digits": True,
        "character_coverage": 0.98,
        "spare_tokens": 4,
        "sample_bytes": 1 << 30,
        "seed": 1024,
        "workers": 1,
    }
    return TokenizerStage(**values | changes)


@dataclass(frozen=True)
class Ingested:
    """The folder and the summary of an ingest stage."""

    folder: Path
    sources: dict[str, Any]

    def documents(self, source: str, split: str = "train") -> list[Document]:
        return list(read_documents(documents_path(self.folder, source, split)))

    def texts(self, source: str) -> list[str]:
        """The source's texts of both splits, sorted."""
        return sorted(d.text for split in ("train", "held_out") for d in self.documents(source, split))

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.folder / "documents").iterdir())}


@dataclass(frozen=True)
class Corpus:
    """The folders of the three data stages over a few real documents."""

    ingest: Path
    tokenizer: Path
    tokens: Path
    counts: dict[str, dict[str, dict[str, int]]]


@pytest.fixture(scope="session")
def source() -> Callable[..., SourcePlan]:
    """Makes a SourcePlan of a name, a path and whatever differs from the usual."""
    return _source


@pytest.fixture(scope="session")
def tokenizer_stage() -> Callable[..., TokenizerStage]:
    """Makes a TokenizerStage of whatever differs from the usual."""
    return _tokenizer_stage


@pytest.fixture(scope="session")
def run_ingest(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ingested]:
    """Runs an ingest stage over sources into a new folder."""

    def run(*sources: SourcePlan, root: Path, held_out: float = 0.0, seed: int = 1, workers: int = 1) -> Ingested:
        out = tmp_path_factory.mktemp("ingest")
        stage = IngestStage(name="ingest", needs=(), sources=sources, held_out=held_out, seed=seed, workers=workers)
        summary: Any = ingest.run(stage, root=root, inputs={}, out=out, progress=lambda _: None)
        json.dumps(summary)  # plain data
        return Ingested(out, summary["sources"])

    return run


@pytest.fixture(scope="session")
def run_tokenize(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Tokenizes what an ingest stage left into a new folder."""

    def run(documents: Path, vocabulary: Path, sources: tuple[str, ...], vocab_size: int, workers: int = 1) -> Path:
        out = tmp_path_factory.mktemp("tokens")
        needs = {"ingest": documents, "tokenizer": vocabulary}
        stage = TokenizeStage(
            name="tokenize", needs=tuple(needs), sources=sources, vocab_size=vocab_size, workers=workers
        )
        tokenize.run(stage, root=Path(), inputs=needs, out=out, progress=lambda _: None)
        return out

    return run


@pytest.fixture(scope="session")
def corpus(
    tmp_path_factory: pytest.TempPathFactory, run_ingest: Callable[..., Ingested], run_tokenize: Callable[..., Path]
) -> Corpus:
    """Some novel chapters, all poems and the package `json`, through the three stages."""
    sources = (
        _source("novels", "corpus/novels-en.jsonl.gz", max_size_bytes=300_000),
        _source("poems", "corpus/poems-zh.jsonl.gz", language="zh"),
        _source("code", "python://stdlib", kind="code", language="python", include=("json/**", "email/*.py")),
    )
    ingested = run_ingest(*sources, root=EXAMPLES, held_out=0.1)
    vocabulary = tmp_path_factory.mktemp("tokenizer")
    stage = _tokenizer_stage()
    tokenizer.run(stage, root=EXAMPLES, inputs={"ingest": ingested.folder}, out=vocabulary, progress=lambda _: None)
    tokens = run_tokenize(ingested.folder, vocabulary, ("novels", "poems", "code"), stage.vocab_size)
    return Corpus(ingested.folder, vocabulary, tokens, json.loads((tokens / "counts.json").read_bytes()))
