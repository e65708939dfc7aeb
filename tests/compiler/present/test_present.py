"""What the terminal says in the cases that the golden texts do not have."""

import io

import msgspec
import pytest
from rich.console import Console
from tests.compiler.present.plans import GB, HARDWARE, LINKS, made_plan, made_verdicts

from trainwright.compiler.present.document import stage_to_json
from trainwright.compiler.present.facts import TERMS, fullest, totals
from trainwright.compiler.present.groups import groups_of, layers_of, ranks_of, short_ranks
from trainwright.compiler.present.memory import stacked
from trainwright.compiler.present.plan import present_plan
from trainwright.compiler.present.stage import present_stage
from trainwright.compiler.present.tables import bar, interval, seconds
from trainwright.spec.device import Links
from trainwright.spec.plan import PhaseStage, Plan

replace = msgspec.structs.replace


def text_of(plan: Plan, stage: str | None = None) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    verdicts = made_verdicts(plan)
    if stage is None:
        present_plan(plan, verdicts, console)
    else:
        present_stage(plan, next(each for each in verdicts if each.stage == stage), console)
    return " ".join(console.export_text().split())


def phase(plan: Plan, name: str) -> PhaseStage:
    stage = plan.stage(name)
    assert isinstance(stage, PhaseStage)
    return stage


def test_the_fullest_rank_is_of_all_phases_and_ranks() -> None:
    full = fullest(made_plan())
    assert (full.estimate.stage, full.memory.pipeline_rank) == ("4k", 0)


def test_a_card_that_is_too_small_is_said_first() -> None:
    plan = made_plan()
    small = tuple(replace(each, capacity_bytes=40 * GB) for each in plan.estimates)
    assert "fits no: the fullest rank (pp 0 in 4k) needs 40.0 GiB of 37.3 GiB (108%)" in text_of(
        replace(plan, estimates=small)
    )


def test_without_a_peak_there_is_no_time_and_no_cost() -> None:
    nothing = dict.fromkeys(
        ("step", "tokens_per_s", "mfu", "goodput", "duration_s", "duration_low_s", "duration_high_s", "gpu_hours",
         "energy_kwh", "cost", "cost_low", "cost_high", "capacity_bytes")
    )  # fmt: skip
    plan = made_plan()
    plan = replace(plan, estimates=tuple(replace(each, **nothing) for each in plan.estimates),
                   hardware=replace(HARDWARE, peak_flops=None))  # fmt: skip
    said = text_of(plan)
    assert "fits not known: the fullest rank (pp 0 in 4k) needs 40.0 GiB" in said
    assert "takes not known: no peak of `a800-80gb` is known" in said
    assert "No peak of `a800-80gb` is known, so no time." in text_of(plan, "4k")
    assert "Pipeline of a step" not in text_of(plan, "4k")


def test_without_a_price_there_are_hours() -> None:
    plan = made_plan()
    free = tuple(replace(each, cost=None, cost_low=None, cost_high=None) for each in plan.estimates)
    assert "costs ~28,000 GPU-hours, ~14,000 kWh; no price is stated" in text_of(replace(plan, estimates=free))


def test_totals_are_sums_and_none_where_a_phase_is_not_known() -> None:
    plan = made_plan()
    whole = totals(plan)
    assert whole.cost is not None
    assert whole.cost.value == sum(each.cost or 0 for each in plan.estimates)
    assert whole.cost.low == pytest.approx(0.9 * whole.cost.value)
    half = replace(plan, estimates=(plan.estimates[0], replace(plan.estimates[1], energy_kwh=None, cost=None)))
    assert (totals(half).cost, totals(half).energy_kwh) == (None, None)


def test_the_bar_of_letters_is_as_long_as_the_memory() -> None:
    memory = made_plan().estimates[0].memory[3]
    line = stacked(memory, 2 * memory.total_bytes, 200).plain
    assert len(line) == 200
    assert line.count("·") == 100
    for letter, _, amount in TERMS:
        assert line.count(letter) == pytest.approx(amount(memory) / memory.total_bytes * 100, abs=1)


def test_a_bar_says_that_something_is_there() -> None:
    assert bar(0, 4).plain == "    "
    assert bar(1e-9, 4).plain == "▏   "
    assert bar(0.5, 4).plain == "██  "
    assert bar(7, 4).plain == "████"


def test_intervals_are_left_out_where_they_are_points() -> None:
    assert interval(seconds, 1.0, 2.0) == "1 s to 2 s"
    assert interval(seconds, 1.0, 1.0) == interval(seconds, None, None) == ""


def test_groups_say_their_members_and_whether_a_node_holds_them() -> None:
    plan = made_plan()
    groups = {each.axis: each for each in groups_of(phase(plan, "4k"), LINKS)}
    assert {axis: (each.size, each.count, each.nodes) for axis, each in groups.items()} == {
        "tensor": (2, 32, 1), "data": (8, 8, 2), "ZeRO-1": (4, 16, 1), "pipeline": (4, 16, 4),
    }  # fmt: skip
    assert groups["pipeline"].first == (0, 16, 32, 48)
    assert groups["tensor"].where == "inside a node, 200 GB/s"
    assert groups["data"].where == "across 2 nodes, 25 GB/s"
    rack = replace(LINKS, domain=72)  # a fast link that joins more than a node
    assert [each.where for each in groups_of(phase(plan, "4k"), rack)][1] == "across 2 nodes, 200 GB/s"
    assert groups_of(phase(plan, "4k"), Links())[0].where == "inside a node"
    assert "ZeRO-1" not in {each.axis for each in groups_of(phase(plan, "32k"), LINKS)}  # it is the data axis


def test_groups_agree_with_the_coordinates_of_a_rank() -> None:
    own = phase(made_plan(), "4k")
    for group in groups_of(own, LINKS):
        axis = "data" if group.axis.startswith("ZeRO") else group.axis
        places = [getattr(own.layout.coordinates(rank), axis) for rank in group.first]
        assert places == list(range(group.size))


def test_a_pipeline_rank_says_what_it_holds() -> None:
    own = phase(made_plan(), "4k")
    assert layers_of(own, 0) == "embedding, layers 0–3 and 16–19"
    assert layers_of(own, 3) == "layers 12–15 and 28–31, head"
    assert ranks_of(own, 3) == range(48, 64)
    assert short_ranks(range(0, 4096, 1024)) == "0, 1,024, 2,048, 3,072"
    assert short_ranks(range(64)) == "0, 1, 2, … 63"


def test_json_of_a_stage_has_its_estimate_and_verdict() -> None:
    plan = made_plan()
    verdict = made_verdicts(plan)[3]
    document = stage_to_json(plan, verdict)
    assert document["stage"]["name"] == document["estimate"]["stage"] == document["verdict"]["stage"] == "4k"
    assert stage_to_json(plan, made_verdicts(plan)[0])["estimate"] is None
