"""The driver, and what the passes make of a spec."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.compiler.support import compile_fragment, write_spec

from trainwright.compiler.draft import SECTIONS, Check, Draft, Pass
from trainwright.compiler.emit import emit
from trainwright.compiler.pipeline import PASSES, compile_spec, run_passes
from trainwright.spec.diagnostics import Diagnostic
from trainwright.spec.load import load
from trainwright.spec.plan import IngestStage, PhaseStage, Plan, TokenizerStage, decode
from trainwright.spec.spec import Spec

TWO_PHASES = """
[[phases]]
name = "short"
tokens = "66_000"
sequence_length = 128
tokens_per_step = "4Ki"
mixture = "base"
rope_base = 50_000
learning_rate = { peak = 1e-3, warmup = "4 steps" }

[[phases]]
name = "long"
tokens = "32Ki"
sequence_length = 512
mixture = "base"

[[phases]]
name = "end"
tokens = "8Ki"
sequence_length = 512
mixture = "base"
learning_rate = { peak = 1e-4, final = 0 }
from = "short"
"""


def plan_of(folder: Path, fragment: str = "", *sets: str) -> Plan:
    _, compiled = compile_fragment(folder, fragment, *sets)
    assert compiled.plan is not None, compiled.diagnostics
    return compiled.plan


def phase(plan: Plan, name: str) -> PhaseStage:
    stage = plan.stage(name)
    assert isinstance(stage, PhaseStage)
    return stage


def _empty_draft() -> Draft:
    draft = Draft.__new__(Draft)
    draft.broken = frozenset()
    return draft


def test_each_pass_needs_what_an_earlier_one_gives() -> None:
    known = set(SECTIONS)
    for step in PASSES:
        assert set(step.needs) <= known, step.name
        known |= {step.holds} if isinstance(step, Check) else set(step.gives)


def test_a_pass_that_gives_nothing_of_what_it_promised_is_caught() -> None:
    with pytest.raises(RuntimeError, match="gave"):
        run_passes(_empty_draft(), (Pass(lambda draft: None, needs=(), gives=("model",)),))


def test_a_check_that_changes_the_draft_is_caught() -> None:
    def meddle(draft: Draft) -> list[Diagnostic]:
        draft.mixtures = {}
        return []

    with pytest.raises(RuntimeError, match="meddle"):
        run_passes(_empty_draft(), (Check(meddle, needs=(), holds="fact"),))


def test_a_pass_whose_need_nobody_gives_is_caught() -> None:
    with pytest.raises(RuntimeError, match="model"):
        run_passes(_empty_draft(), (Pass(lambda draft: None, needs=("model",), gives=()),))


def test_mistakes_of_unlike_kinds_come_at_once(tmp_path: Path) -> None:
    _, compiled = compile_fragment(
        tmp_path,
        '[cluster]\ngpu = "h10"\n[export]\nof = ["nothing"]\n[tokenizer]\n[topology]\nvirtual_pipeline = 2\n',
    )
    assert sorted(each.code for each in compiled.diagnostics) == ["TW210", "TW233", "TW309", "TW320"]
    assert compiled.plan is None


def test_mistakes_within_and_between_values_come_at_once(tmp_path: Path) -> None:
    fragment = (
        '[model]\nlayers = "four"\n[data.sources.books]\npth = "books"\n[data.mixtures]\nbase = { novels = 1 }\n'
        '[cluster]\ngpu = "h10"\n'
    )
    _, compiled = compile_fragment(tmp_path, fragment)
    assert [each.code for each in compiled.diagnostics] == ["TW111", "TW112", "TW110", "TW220", "TW320"]


@pytest.mark.parametrize("section", Spec.__struct_fields__)
def test_no_pass_reads_a_table_that_it_does_not_need(section: str, tmp_path: Path) -> None:
    loaded, _ = compile_fragment(tmp_path, TWO_PHASES)
    assert loaded.spec is not None
    partial = msgspec.structs.replace(loaded.spec, **{section: None})
    compiled = compile_spec(dataclasses.replace(loaded, spec=None, partial=partial, broken=frozenset({section})))
    assert compiled.diagnostics == []


def test_a_mistake_of_the_common_topology_is_told_once_for_all_phases(tmp_path: Path) -> None:
    fragment = TWO_PHASES + "\n[cluster]\ngpus_per_node = 4\n[topology]\ntensor = 4\n"
    _, compiled = compile_fragment(tmp_path, fragment)
    assert [each.code for each in compiled.diagnostics] == ["TW302"]


def test_phases_take_over_what_they_do_not_state(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO_PHASES)
    short, long, end = (phase(plan, name) for name in ("short", "long", "end"))
    assert (short.steps, short.tokens) == (16, 16 * 4096)
    assert (long.start_from, end.start_from) == ("short", "short")
    assert long.tokens_per_step == 4096
    assert long.sequences_per_step == 8
    assert (long.rope_base, end.rope_base) == (50_000, 50_000)


def test_one_curve_spans_the_phases_that_do_not_state_their_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO_PHASES)
    short, long, end = (phase(plan, name).learning_rate for name in ("short", "long", "end"))
    assert (short.decay_steps, short.offset, short.warmup_steps) == (24, 0, 4)
    assert (long.decay_steps, long.offset, long.peak, long.final) == (24, 16, 1e-3, 1e-4)
    assert (end.decay_steps, end.offset, end.final) == (2, 0, 0.0)


def test_mixtures_of_mixtures_become_weights_that_sum_to_one(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        '[data.sources.books]\npath = "books"\n[data.sources.code]\npath = "code.jsonl"\n'
        "[data.mixtures]\nbase = { long = 3, books = 1 }\nlong = { books = 0.6, code = 0.4 }\n",
    )
    assert phase(plan, "short").mixture == {"books": 0.7, "code": 0.3}


@pytest.mark.parametrize(
    ("sets", "shape"),
    [
        ((), (1, 1, 32, 1)),
        (("cluster.gpus_per_node=8", "topology.tensor=2", "topology.pipeline=2"), (2, 2, 8, 2)),
        (
            ("cluster.gpus_per_node=2", "topology.pipeline=2", "topology.virtual_pipeline=2"),
            (1, 2, 16, 2),
        ),
    ],
)
def test_auto_is_resolved(tmp_path: Path, sets: tuple[str, ...], shape: tuple[int, ...]) -> None:
    layout = phase(plan_of(tmp_path, "", *sets), "short").layout
    assert (layout.tensor, layout.pipeline, layout.micro_batch, layout.micro_batches) == shape
    assert layout.micro_batch * layout.micro_batches * layout.data == 32
    assert layout.sequence_parallel is (layout.tensor > 1)


def test_the_plan_names_the_loss(tmp_path: Path) -> None:
    def loss(*sets: str) -> str:
        return phase(plan_of(tmp_path, "", *sets), "short").loss

    assert loss() == loss("kernels.loss='logits'") == "logits"
    assert loss("kernels.loss='fused'") == "fused"


def test_sources_are_looked_at(tmp_path: Path) -> None:
    ingest = plan_of(tmp_path).stage("ingest")
    assert isinstance(ingest, IngestStage)
    books = ingest.sources[0]
    assert (books.name, books.files, books.size_bytes) == ("books", 2, 42)
    assert books.digest is not None


def test_a_remote_source_is_not_looked_at(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, '[data.sources.web]\npath = "s3://web/*.jsonl"\n[data.mixtures]\nbase = { web = 1 }\n')
    ingest = plan.stage("ingest")
    assert isinstance(ingest, IngestStage)
    assert ingest.sources[0].digest is None
    assert [(notice.key, notice.blocks) for notice in plan.notices] == [("data.sources.web.path", False)]


def test_an_existing_tokenizer_needs_no_text(tmp_path: Path) -> None:
    tokenizer = plan_of(tmp_path, '[tokenizer]\npath = "tokenizer.model"\n').stage("tokenizer")
    assert isinstance(tokenizer, TokenizerStage)
    assert tokenizer.needs == ()
    assert tokenizer.digest is not None


def fingerprints(plan: Plan) -> dict[str, str]:
    return {stage.name: stage.fingerprint for stage in plan.stages}


@pytest.mark.parametrize(
    ("sets", "changed"),
    [
        (("topology.recompute='full'", "run.log_every=3", "run.checkpoint.every=7", "data.workers=2"), set()),
        (("kernels.loss='fused'",), set()),
        (("model.ffn_size=256",), {"short", "evaluate.short", "export.short"}),
        (("evaluation[0].max_tokens=9",), {"evaluate.short"}),
        (("data.held_out=0.1",), {"ingest", "tokenizer", "tokenize", "short", "evaluate.short", "export.short"}),
    ],
)
def test_a_fingerprint_covers_what_determines_the_result(
    tmp_path: Path, sets: tuple[str, ...], changed: set[str]
) -> None:
    ends = '[[evaluation]]\nkind = "samples"\nof = ["short"]\nprompts = ["It"]\n[export]\nof = ["short"]\n'
    if any(each.startswith("evaluation") for each in sets):
        old = fingerprints(plan_of(tmp_path, ends))
        new = fingerprints(plan_of(tmp_path, ends.replace('["It"]', '["It"]\nmax_tokens = 9')))
    else:
        old, new = fingerprints(plan_of(tmp_path, ends)), fingerprints(plan_of(tmp_path, ends, *sets))
    assert {name for name in old if old[name] != new[name]} == changed


def test_a_change_of_the_text_changes_everything_after_it(tmp_path: Path) -> None:
    old = fingerprints(plan_of(tmp_path))
    write_spec(tmp_path)
    (tmp_path / "books" / "two.txt").write_text("Universally acknowledge!!\n")
    compiled = compile_spec(load(tmp_path / "spec.toml"))
    assert compiled.plan is not None
    assert all(old[name] != new for name, new in fingerprints(compiled.plan).items())


def test_emitting_twice_gives_the_same_bytes_that_decode_to_the_plan(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TWO_PHASES)
    assert emit(plan) == emit(plan_of(tmp_path, TWO_PHASES))
    assert decode(emit(plan)) == plan


COMPILE = """
import sys
from pathlib import Path
from trainwright.compiler.emit import emit
from trainwright.compiler.pipeline import compile_spec
from trainwright.spec.load import load
sys.stdout.buffer.write(emit(compile_spec(load(Path(sys.argv[1]))).plan))
heavy = {"torch", "numpy", "scipy", "pandas", "megatron"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_plan_is_the_same_from_another_folder_and_needs_no_torch(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "specs")
    outputs = {
        subprocess.run(
            [sys.executable, "-c", COMPILE, path], cwd=folder, check=True, capture_output=True, timeout=60
        ).stdout
        for folder, path in ((spec.parent, "spec.toml"), (tmp_path, "specs/spec.toml"), (Path("/"), str(spec)))
    }
    assert len(outputs) == 1
