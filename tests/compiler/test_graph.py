"""The stage graph's order, and its drawings."""

import json
from pathlib import Path

import pytest
from tests.compiler.support import compile_fragment

from trainwright.compiler.draw import draw
from trainwright.compiler.graph import StageGraph
from trainwright.spec.plan import Plan, TokenizeStage

ENDS = '[[evaluation]]\nkind = "perplexity"\nof = ["short"]\n[export]\nof = ["short"]\n'


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    _, compiled = compile_fragment(tmp_path, ENDS)
    assert compiled.plan is not None
    return compiled.plan


def stage(name: str, *needs: str) -> TokenizeStage:
    return TokenizeStage(name=name, needs=needs, sources=(), vocab_size=1, workers=0)


def names(graph: StageGraph) -> list[str]:
    return [each.name for each in graph]


def test_stages_come_after_what_they_need_and_otherwise_as_given() -> None:
    graph = StageGraph([stage("end", "left", "right"), stage("right", "start"), stage("left", "start"), stage("start")])
    assert names(graph) == ["start", "right", "left", "end"]
    assert graph.downstream("right") == {"end"}


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ([stage("one"), stage("one")], "same name"),
        ([stage("one", "two")], "`two`, which does not exist"),
        ([stage("one", "two"), stage("two", "one")], "circle"),
    ],
)
def test_what_is_no_graph_is_refused(stages: list[TokenizeStage], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        StageGraph(stages)


def test_text_shows_a_stage_a_line_with_its_direct_needs(plan: Plan) -> None:
    assert draw(plan, "text").splitlines() == [
        "ingest          2 sources, 1 % held out",
        "tokenizer       512 pieces, bpe trained on the mixture  <- ingest",
        "tokenize        2 sources to token ids  <- tokenizer",
        "short           65.54k tokens, 16 steps, sequences of 128  <- tokenize",
        "evaluate.short  perplexity  <- short",
        "export.short    huggingface  <- short",
    ]


def test_json_shows_every_need(plan: Plan) -> None:
    stages = {each["name"]: each for each in json.loads(draw(plan, "json"))["stages"]}
    assert stages["tokenize"]["needs"] == ["ingest", "tokenizer"]
    assert stages["short"]["kind"] == "phase"


def test_dot_and_mermaid_hold_all_stages(plan: Plan) -> None:
    dot, mermaid = draw(plan, "dot"), draw(plan, "mermaid")
    assert '"tokenize" -> "short";' in dot
    assert "s2 --> s3" in mermaid
    for each in plan.stages:
        assert f'"{each.name}"' in dot
        assert f'["{each.name}<br/>' in mermaid
