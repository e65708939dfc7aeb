"""How "auto" is written, and what the compiler makes of it."""

import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from tests.compiler.support import compile_fragment, two_phases, write_spec

from trainwright.compiler.pipeline import compile_spec
from trainwright.compiler.search.question import Request
from trainwright.spec.auto import AUTO_KEYS
from trainwright.spec.load import load
from trainwright.spec.plan import Layout, PhaseStage, Plan
from trainwright.spec.schema import published_schema
from trainwright.spec.show import show_spec
from trainwright.spec.topology import Topology

CLUSTER = '[run]\nname = "base"\n[cluster]\ngpu = "a100-80gb"\ngpus_per_node = 4\n'
PHASES = two_phases(512)


def layout(plan: Plan | None, phase: str = "short") -> Layout:
    assert plan is not None
    stage = plan.stage(phase)
    assert isinstance(stage, PhaseStage)
    return stage.layout


def topology_of(folder: Path, fragment: str, *sets: str) -> Topology:
    spec = load(write_spec(folder, fragment), sets).spec
    assert spec is not None
    return spec.topology


def test_the_whole_topology_may_be_left_to_the_compiler_in_one_word(tmp_path: Path) -> None:
    topology = topology_of(tmp_path, 'topology = "auto"\n')
    assert {getattr(topology, key) for key in AUTO_KEYS} == {"auto"}


def test_a_later_layer_pins_a_value_of_it(tmp_path: Path) -> None:
    topology = topology_of(tmp_path, 'topology = "auto"\n', "topology.tensor=2")
    assert (topology.tensor, topology.pipeline) == (2, "auto")


def test_a_phase_may_leave_its_own_to_the_compiler(tmp_path: Path) -> None:
    pinned = PHASES + "topology = { tensor = 1, micro_batch = 1 }\n"
    spec = load(write_spec(tmp_path, 'topology = "auto"\n' + pinned)).spec
    assert spec is not None
    assert (spec.phases[0].topology.tensor, spec.phases[1].topology.tensor) == (None, 1)
    spec = load(write_spec(tmp_path, PHASES + 'topology = "auto"\n')).spec
    assert spec is not None
    assert (spec.topology.tensor, spec.phases[1].topology.tensor) == (1, "auto")


def test_an_override_of_one_phase_may_say_the_word(tmp_path: Path) -> None:
    spec = load(write_spec(tmp_path, PHASES), ["phases.long.topology=auto"]).spec
    assert spec is not None
    assert [phase.topology.tensor for phase in spec.phases] == [None, "auto"]


def test_any_other_word_is_a_mistake(tmp_path: Path) -> None:
    loaded = load(write_spec(tmp_path, 'topology = "best"\n'))
    assert [each.code for each in loaded.diagnostics] == ["TW112"]


def test_a_size_left_open_is_searched_for_and_told_as_such(tmp_path: Path) -> None:
    _, compiled = compile_fragment(tmp_path, CLUSTER + '[topology]\ntensor = "auto"\nmicro_batch = 4\n')
    assert compiled.diagnostics == []
    assert compiled.plan is not None
    found = layout(compiled.plan)
    assert compiled.search is not None
    chosen = compiled.search.choices[0].candidate.layout
    assert (found.tensor, found.micro_batch, found.pipeline) == (chosen.tensor, 4, 1)
    told = {each.key: each.value for each in compiled.plan.assumptions if each.origin == "search"}
    assert told == {"phases[0].topology.tensor": str(found.tensor)}


@pytest.mark.parametrize("key", ["micro_batch", "data", "sequence_parallel", "schedule"])
def test_what_has_a_rule_of_its_own_needs_no_search(tmp_path: Path, key: str) -> None:
    _, compiled = compile_fragment(tmp_path, f'[topology]\n{key} = "auto"\n')
    assert compiled.diagnostics == []
    assert compiled.search is None


def test_a_group_of_no_sharding_is_nothing_to_search_for(tmp_path: Path) -> None:
    _, compiled = compile_fragment(tmp_path, CLUSTER + '[topology]\nzero = 0\nzero_group = "auto"\n')
    assert compiled.diagnostics == []
    assert compiled.search is None
    assert layout(compiled.plan).zero_group == 1


def test_only_the_phases_that_leave_something_open_are_searched(tmp_path: Path) -> None:
    _, compiled = compile_fragment(tmp_path, CLUSTER + PHASES + 'topology = { recompute = "auto" }\n')
    assert compiled.search is not None
    assert list(compiled.search.phases) == [1]
    assert layout(compiled.plan, "short").recompute == "none"


def test_the_same_spec_gives_the_same_plan(tmp_path: Path) -> None:
    fragment = 'topology = "auto"\n' + CLUSTER + PHASES
    plans = [compile_fragment(tmp_path, fragment)[1].plan for _ in range(2)]
    assert plans[0] is not None
    assert plans[0] == plans[1]


def test_a_search_that_was_asked_for_frees_what_nobody_wrote(tmp_path: Path) -> None:
    loaded = load(write_spec(tmp_path, CLUSTER + "[topology]\npipeline = 2\n"))
    compiled = compile_spec(loaded, request=Request())
    assert compiled.search is not None
    assert compiled.search.opened
    topology = compiled.search.phases[0].question.topology
    assert (topology.pipeline, topology.tensor, topology.recompute) == (2, "auto", "auto")
    assert layout(compiled.plan).pipeline == 2


def test_a_search_that_was_asked_for_keeps_what_was_written_beside_auto(tmp_path: Path) -> None:
    loaded = load(write_spec(tmp_path, CLUSTER + '[topology]\ntensor = "auto"\n'))
    compiled = compile_spec(loaded, request=Request())
    assert compiled.search is not None
    assert not compiled.search.opened
    assert compiled.search.phases[0].question.topology.pipeline == 1


def test_mistakes_elsewhere_are_told_beside_an_open_layout(tmp_path: Path) -> None:
    fragment = 'topology = "auto"\n[cluster]\ngpu = "h10"\n[export]\nof = ["nothing"]\n'
    _, compiled = compile_fragment(tmp_path, fragment)
    assert sorted(each.code for each in compiled.diagnostics) == ["TW233", "TW320"]


def test_editors_know_the_word() -> None:
    schema = Draft202012Validator(published_schema("spec"))
    for text in ('topology = "auto"', PHASES + 'topology = "auto"', '[topology]\nzero_group = "auto"'):
        assert list(schema.iter_errors(tomllib.loads(text))) == []
    assert list(schema.iter_errors(tomllib.loads('topology = "best"'))) != []


def test_what_is_shown_reads_as_the_same_spec(tmp_path: Path) -> None:
    loaded = load(write_spec(tmp_path, 'topology = "auto"\n' + PHASES + "topology = { tensor = 2 }\n"))
    shown = tmp_path / "shown.toml"
    shown.write_text(show_spec(loaded))
    assert load(shown).spec == loaded.spec
