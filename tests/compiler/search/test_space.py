"""The space of layouts is what the checks let through: no more, and no less."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from tests.compiler.search.questions import question
from tests.compiler.support import write_spec

from trainwright.compiler.draft import Draft, SizedTopology
from trainwright.compiler.passes.check_batches import check_batches
from trainwright.compiler.passes.check_layout_options import check_layout_options
from trainwright.compiler.passes.check_layouts import check_layouts
from trainwright.compiler.passes.check_world import check_world
from trainwright.compiler.passes.resolve_data_axis import resolve_data_axis
from trainwright.compiler.pipeline import PASSES, compile_spec, run_passes
from trainwright.compiler.search.ask import question_of
from trainwright.compiler.search.question import Question, Request
from trainwright.compiler.search.space import Group, legal_layouts
from trainwright.spec.load import load
from trainwright.spec.plan import Layout, PhaseStage

CLUSTER = "[cluster]\nnodes = 2\ngpus_per_node = 4\n"
AXES = ("tensor", "pipeline", "virtual_pipeline", "context", "data")
SHAPE = (*AXES, "micro_batch", "sequence_parallel", "zero", "zero_group")


def layouts(asked: Question) -> list[Layout]:
    return [group.layout(row) for group in legal_layouts(asked).groups for row in range(len(group))]


def is_unrunnable(layout: Layout) -> bool:
    return any(mask[0] for mask in Group.of(layout).unrunnable.values())


def shape(layout: Layout) -> tuple[int, ...]:
    return tuple(getattr(layout, key) for key in SHAPE)


def drafted(folder: Path, fragment: str, *, everything: bool) -> Draft:
    """A draft up to the question of its one phase."""
    loaded = load(write_spec(folder, fragment))
    assert loaded.spec is not None
    draft = Draft(loaded.spec, loaded, None, Request(everything=everything))
    assert run_passes(draft, PASSES[: [step.name for step in PASSES].index("search_layouts")]) == []
    return draft


def let_through(draft: Draft) -> Iterator[tuple[int, ...]]:
    """The shapes of all topologies of a small world that no check has anything against."""
    few = (1, 2, 3, 4)
    zeros: tuple[Literal[0, 1], ...] = (0, 1)
    axes = product((*few, 8), few, few, (1, 2, 4, 8), (*few, 8, 16, 32), (True, False))
    for (tensor, pipeline, virtual, context, micro_batch, sequence_parallel), zero in product(axes, zeros):
        # Written is what a user has to say: `sequence_parallel = true` is a mistake with one tensor rank.
        if tensor == 1 and sequence_parallel:
            continue
        draft.topologies = (
            SizedTopology(
                tensor=tensor,
                pipeline=pipeline,
                virtual_pipeline=virtual,
                context=context,
                micro_batch=micro_batch,
                sequence_parallel=sequence_parallel,
                zero=zero,
            ),
        )
        if list(check_world(draft)):
            continue
        resolve_data_axis(draft)
        if not [*check_layouts(draft), *check_layout_options(draft), *check_batches(draft)]:
            data = draft.data_ranks[0]
            yield tensor, pipeline, virtual, context, data, micro_batch, sequence_parallel, zero, data if zero else 1


def test_it_holds_exactly_what_the_checks_let_through(tmp_path: Path) -> None:
    draft = drafted(tmp_path, CLUSTER + '[topology]\ntensor = "auto"\n', everything=False)
    topology = msgspec.structs.replace(
        draft.open_topologies[0], pipeline="auto", virtual_pipeline="auto", context="auto", zero="auto"
    )
    asked = replace(question_of(draft, 0), topology=topology, everything=True)
    # A tensor axis across nodes is only taken where it is pinned.
    expected = {each for each in let_through(draft) if each[0] <= 4}
    found = [shape(each) for each in layouts(asked) if each.zero <= 1 and each.zero_group in (1, each.data)]
    found = [each for each in found if not (each[7] == 1 and each[8] == 1 and each[4] > 1)]
    assert len(expected) > 50
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_layouts_of_the_space_compile_to_themselves(tmp_path: Path) -> None:
    draft = drafted(tmp_path, CLUSTER, everything=True)
    every = layouts(question_of(draft, 0))
    assert len(every) > 1000
    for number, layout in enumerate(every[:: len(every) // 40]):
        keys = [*SHAPE, "recompute"]
        if layout.zero == 0:
            keys.remove("zero_group")
        if layout.tensor == 1:
            keys.remove("sequence_parallel")
        sets = [f"topology.{key}={msgspec.json.encode(getattr(layout, key)).decode()}" for key in keys]
        loaded = load(tmp_path / "spec.toml", sets)
        compiled = compile_spec(loaded)
        assert compiled.plan is not None, (number, compiled.diagnostics)
        stage = compiled.plan.stage("short")
        assert isinstance(stage, PhaseStage)
        assert msgspec.structs.replace(stage.layout, recompute_modules=()) == layout
        assert any(notice.blocks for notice in compiled.plan.notices) == is_unrunnable(layout)


def test_context_ranks_are_whole_groups_that_exchange_heads() -> None:
    every, some = (
        {layout.context for layout in layouts(question(context="auto", context_heads=heads))} for heads in (1, 4)
    )
    assert some == {context for context in every if context % 4 == 0} | {1}
    assert len(some) > 2


def test_what_the_runtime_cannot_execute_is_left_out_and_counted() -> None:
    runnable, every = legal_layouts(question()), legal_layouts(question(everything=True))
    assert len(runnable) + runnable.left_out == len(every)
    assert not any(is_unrunnable(layout) for layout in layouts(question()))
    assert any(1 < layout.zero_group < layout.data for layout in layouts(question()))
    assert any(is_unrunnable(layout) for layout in layouts(question(everything=True)))


def test_a_pinned_value_is_kept_even_if_the_runtime_cannot_execute_it() -> None:
    found = layouts(question(context=2, tensor=2, zero_group=2, micro_batch=1))
    assert found
    assert {(each.context, each.tensor, each.zero_group, each.micro_batch) for each in found} == {(2, 2, 2, 1)}


@pytest.mark.parametrize(("schedule", "chunks"), [("1f1b", {1}), ("interleaved", {2, 3, 4, 6, 12})])
def test_a_pinned_schedule_says_how_many_chunks_a_rank_has(schedule: str, chunks: set[int]) -> None:
    assert {each.virtual_pipeline for each in layouts(question(pipeline=2, schedule=schedule))} == chunks


def test_it_has_an_order_of_its_own() -> None:
    assert layouts(question(nodes=2)) == layouts(question(nodes=2))
