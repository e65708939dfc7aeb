"""Keys of a layout that our runtime does not execute yet, and InternEvo's words: mapped, priced, and blocked."""

from pathlib import Path
from typing import Any

import pytest
from tests.compiler.support import compile_fragment

from trainwright.compiler.cost.case import Case
from trainwright.spec.plan import PhaseStage, Plan

FOUR = "[cluster]\ngpus_per_node = 4\n"


def planned(folder: Path, topology: str) -> Plan:
    _, compiled = compile_fragment(folder, f"{FOUR}[topology]\n{topology}\n")
    assert compiled.plan is not None, compiled.diagnostics
    return compiled.plan


def phase(plan: Plan) -> PhaseStage:
    return next(stage for stage in plan.stages if isinstance(stage, PhaseStage))


def codes(folder: Path, topology: str) -> list[str]:
    _, compiled = compile_fragment(folder, f"{FOUR}[topology]\n{topology}\n")
    return [diagnostic.code for diagnostic in compiled.diagnostics]


@pytest.mark.parametrize(
    ("topology", "layout"),
    [
        ('tensor = 2\ntensor_mode = "mtp"', {"tensor": 2, "sequence_parallel": False}),
        ('tensor = 2\ntensor_mode = "fsp"', {"tensor": 2, "sequence_parallel": True, "keep_gathered": False}),
        ('tensor = 2\ntensor_mode = "msp"', {"tensor": 2, "sequence_parallel": True, "keep_gathered": True}),
        (
            'tensor = 2\ntensor_mode = "isp"\nweight = 4',
            {"tensor": 1, "context": 2, "data": 2, "weight": 4, "context_exchange": "all_to_all"},
        ),
        ("context = 2", {"context": 2, "context_exchange": "gather"}),
        ('context = 2\ncontext_exchange = "ring"', {"context": 2, "context_exchange": "ring"}),
        ("context = 4\ncontext_heads = 2", {"context": 4, "context_exchange": "gather", "context_heads": 2}),
        ("context = 2\ncontext_heads = 2", {"context": 2, "context_exchange": "all_to_all", "context_heads": 1}),
    ],
)
def test_internevos_words_are_mapped(topology: str, layout: dict[str, Any], tmp_path: Path) -> None:
    found = phase(planned(tmp_path, topology)).layout
    assert {key: getattr(found, key) for key in layout} == layout


@pytest.mark.parametrize(
    ("topology", "keys"),
    [
        ("zero = 2", ["topology.zero"]),
        ("zero = 3", ["topology.zero"]),
        ('offload = ["optimizer", "activations"]', ["topology.offload"]),
        ('recompute = "full"\nrecompute_layers = 2', []),
        ('tensor = 2\ntensor_mode = "msp"', ["topology.tensor_mode"]),
        ('tensor = 2\ntensor_mode = "isp"\nweight = 2', ["topology.weight"]),
        ("context = 2", []),
        ('tensor = 2\ntensor_mode = "fsp"', []),
        ('recompute = "selective"\nrecompute_modules = ["core_attention", "norm", "mlp"]', []),
    ],
)
def test_what_cannot_be_executed_is_planned_and_blocks(topology: str, keys: list[str], tmp_path: Path) -> None:
    plan = planned(tmp_path, topology)
    assert [notice.key for notice in plan.notices if notice.blocks] == keys


def test_a_case_carries_what_the_layout_says(tmp_path: Path) -> None:
    topology = 'zero = 2\nrecompute = "selective"\nrecompute_modules = ["norm", "mlp"]\noffload = ["optimizer"]'
    case = Case.of(phase(planned(tmp_path, topology)))
    assert (case.zero, case.recompute, case.recompute_modules) == (2, "selective", ("norm", "mlp"))
    assert (case.offload_optimizer, case.offload_activations) == (1.0, 0.0)


def test_a_phase_may_state_its_own(tmp_path: Path) -> None:
    _, compiled = compile_fragment(
        tmp_path, FOUR + "[topology]\noffload = ['optimizer']\n", "phases.short.topology.offload=[]"
    )
    assert compiled.plan is not None, compiled.diagnostics
    assert phase(compiled.plan).layout.offload == ()


def test_the_result_does_not_depend_on_these_keys(tmp_path: Path) -> None:
    plain = phase(planned(tmp_path / "a", "zero = 1"))
    other = phase(planned(tmp_path / "b", 'zero = 3\noffload = ["optimizer"]\nrecompute = "full"'))
    assert plain.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("topology", "code"),
    [
        ("recompute_modules = ['norm']", "TW315"),
        ("recompute = 'selective'\nrecompute_layers = 1", "TW315"),
        ("recompute = 'selective'\nrecompute_modules = ['mlp', 'activation']", "TW315"),
        ("recompute = 'selective'\nrecompute_modules = ['norm', 'norm']", "TW315"),
        ("tensor_mode = 'msp'", "TW316"),
        ("tensor = 2\ntensor_mode = 'fsp'\nsequence_parallel = false", "TW316"),
        ("tensor = 2\ntensor_mode = 'mtp'\nsequence_parallel = true", "TW316"),
        ("tensor = 2\ntensor_mode = 'isp'\ncontext = 2", "TW316"),
        ("tensor = 2\ntensor_mode = 'isp'\ncontext_exchange = 'ring'", "TW316"),
        ("tensor = 4\ntensor_mode = 'isp'\ncontext_heads = 2", "TW325"),
        ("context_heads = 2", "TW322"),
        ("context = 2\ncontext_heads = 4", "TW324"),
        ("weight = 2", "TW317"),
        ("tensor = 2\ntensor_mode = 'isp'\nweight = 2\nzero = 3", "TW317"),
        ("tensor = 2\ntensor_mode = 'isp'\nweight = 3", "TW318"),
        ("recompute = 'full'\nrecompute_layers = 5", "TW319"),
        ("recompute = 'selective'\nrecompute_modules = []", "TW118"),
    ],
)
def test_a_key_that_does_nothing_or_contradicts_is_told(topology: str, code: str, tmp_path: Path) -> None:
    assert codes(tmp_path, topology) == [code]


def test_a_sequence_that_isp_cannot_split_is_told_at_the_tensor_axis(tmp_path: Path) -> None:
    _, compiled = compile_fragment(
        tmp_path, '[cluster]\ngpus_per_node = 3\n[topology]\ntensor = 3\ntensor_mode = "isp"\n'
    )
    (found,) = [diagnostic for diagnostic in compiled.diagnostics if diagnostic.code == "TW306"]
    assert [label.span.line for label in found.labels] == [4]
