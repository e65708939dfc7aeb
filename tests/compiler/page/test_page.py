"""The page of a plan: one file, well formed, self-contained, light, and safe whatever the spec's names are."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from tests.compiler.present.plans import GB, PIPELINED, estimate, made_plan, made_verdicts, memory, phase
from tests.page import Page

from trainwright.compiler.cost.schedule import timeline
from trainwright.compiler.page.gantt import gantt_of
from trainwright.compiler.page.placement import MOST_NODES, placement_view
from trainwright.compiler.page.write import render, write_page
from trainwright.compiler.review import Verdict
from trainwright.spec.plan import Assumption, Notice, PhaseStage, Placement, Plan

HOSTILE = '</script></style><script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>\'"&{{ 7*7 }}'
replace = msgspec.structs.replace


def page_of(plan: Plan) -> tuple[str, Page]:
    text = render(plan, made_verdicts(plan))
    return text, Page(text)


def test_every_section_is_there() -> None:
    text, parsed = page_of(made_plan())
    assert re.findall("<h2>([^<]*?) ?<", text) == [
        "Stages", "Time and cost", "4k", "32k", "Hardware", "Values nobody wrote", "Notes",
        "What this page was made from",
    ]  # fmt: skip
    for said in ("yes: the fullest rank (pp 0 in 4k) needs 40.0 GiB of 79.2 GiB (51%)", "~50,400 45,300 to 55,400",
                 "stopped, checkpoint at step 120", "topology.context context parallelism is not built yet",
                 "Plan: 3 to run, 1 to resume, 3 to reuse."):  # fmt: skip
        assert said in parsed.text


def test_it_needs_nothing_from_outside() -> None:
    text, parsed = page_of(made_plan())
    for tag, attributes in parsed.tags:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
        assert not {"src", "href", "xlink:href", "action"} & set(attributes), tag
    assert "url(" not in text
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, never fetched


def test_text_of_the_spec_is_data() -> None:
    plan = made_plan(
        name=HOSTILE,
        assumptions=(Assumption(key=HOSTILE, value=HOSTILE, origin=HOSTILE, why=HOSTILE),),
        notices=(Notice(key=HOSTILE, message=HOSTILE, blocks=True), Notice(key="x", message=HOSTILE, blocks=False)),
    )
    stages = tuple(replace(each, name=HOSTILE if each.name == "4k" else each.name,
                           needs=tuple(HOSTILE if need == "4k" else need for need in each.needs))
                   for each in plan.stages)  # fmt: skip
    first = replace(plan.estimates[0], stage=HOSTILE,
                    memory=(replace(plan.estimates[0].memory[0], peak=HOSTILE, binds=HOSTILE,
                                    activations={HOSTILE: 29 * GB}),))  # fmt: skip
    plan = replace(plan, stages=stages, estimates=(first, plan.estimates[1]))
    verdicts = [Verdict(each.name, "run", HOSTILE) for each in plan.stages]
    text = render(plan, verdicts)
    parsed = Page(text)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert [tag for tag, _ in parsed.tags].count("img") == 0
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert "<script>alert" not in text
    assert HOSTILE in "".join(parsed.texts)


def test_the_bars_add_up_to_the_share_of_the_card() -> None:
    text, _ = page_of(made_plan())
    (first, *_) = re.findall(r'<div class="stack">(.*?)</div>', text)
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", first)]
    assert sum(widths) == pytest.approx(100 * 43 / 85, abs=0.01)


def test_a_card_that_is_too_small_is_marked_on_the_bars() -> None:
    plan = made_plan()
    plan = replace(plan, estimates=tuple(replace(each, capacity_bytes=40 * GB) for each in plan.estimates))
    text, _ = page_of(plan)
    assert '<i style="left:93.023%"></i>' in text


def test_the_chart_holds_exactly_the_tasks_of_the_timeline() -> None:
    plan = made_plan()
    own = plan.stage("4k")
    step = plan.estimates[0].step
    assert isinstance(own, PhaseStage)
    assert step is not None
    chart = gantt_of(own, plan.estimates[0])
    assert chart is not None
    line = timeline(step.chunks, 16, "interleaved", step.transfer_s)
    kinds, lanes = json.loads(chart.kinds), json.loads(chart.tasks)
    unpacked = []
    for rank, flat in enumerate(lanes):
        free = 0
        for kind, batch, wait in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
            letter, chunk, ticks = kinds[kind]
            start = free + wait
            free = start + ticks
            unpacked.append((letter, rank, chunk, batch, start * chart.tick_s))
    for found, task in zip(unpacked, line.tasks, strict=True):
        assert found[:4] == (task.kind, task.pipeline_rank, task.chunk, task.micro_batch)
        assert found[4] == pytest.approx(task.start_s, abs=2 * chart.tick_s)
    assert (chart.count, chart.shown) == (4 * 2 * 16 * 2, 1.0)


def test_schedules_that_the_runtime_does_not_have_stand_beside_1f1b() -> None:
    assert "What if" not in page_of(made_plan())[1].text  # interleaved: other chunks are other passes
    plan = made_plan()
    layout = replace(PIPELINED, virtual_pipeline=1, schedule="1f1b")
    own = phase("4k", layout, 4096, 400_000, None)
    stages = tuple(own if each.name == "4k" else each for each in plan.stages)
    plan = replace(plan, stages=stages, estimates=(estimate(own, plan.estimates[0].memory, 0.006), plan.estimates[1]))
    assert re.search(r"zb-1p ~2\.\d s -\d", page_of(plan)[1].text)


def test_a_phase_without_a_pipeline_has_no_chart() -> None:
    plan = made_plan()
    own = plan.stage("32k")
    assert isinstance(own, PhaseStage)
    assert gantt_of(own, plan.estimates[1]) is None


def test_placement_shows_one_replica_on_its_nodes() -> None:
    own = phase("4k", PIPELINED, 4096, 1000, None)
    view = placement_view(own)
    assert [(node.number, node.stages) for node in view.nodes] == [(0, "pp 0"), (2, "pp 1"), (4, "pp 2"), (6, "pp 3")]
    assert [cell.rank for node in view.nodes for cell in node.cells if cell.own] == [0, 1, 16, 17, 32, 33, 48, 49]
    assert all(own.layout.coordinates(cell.rank).data == cell.data for node in view.nodes for cell in node.cells)


def large() -> Plan:
    """1,024 GPUs, 16 pipeline ranks of two chunks each, 256 micro-batches."""
    layout = replace(PIPELINED, tensor=8, pipeline=16, virtual_pipeline=2, data=8, micro_batches=256)
    plan = made_plan()
    own = phase("4k", layout, 4096, 400_000, None)
    own = replace(own, placement=Placement(nodes=128, ranks_per_node=8, chunks=own.placement.chunks))
    ranks = tuple(memory(rank, {"attention": 9 * GB}, 0) for rank in range(16))
    estimates = (estimate(own, ranks, 0.006), plan.estimates[1])
    return replace(plan, estimates=estimates, stages=tuple(own if e.name == "4k" else e for e in plan.stages))


def test_one_process_is_not_drawn_on_a_node() -> None:
    plan = made_plan()
    single = replace(PIPELINED, tensor=1, pipeline=1, virtual_pipeline=1, data=1, zero_group=1, sequence_parallel=False)
    own = phase("4k", single, 4096, 1000, None)
    estimates = (estimate(own, plan.estimates[1].memory, 0.006), plan.estimates[1])
    stages = tuple(own if each.name == "4k" else each for each in plan.stages)
    _, parsed = page_of(replace(plan, stages=stages, estimates=estimates))
    assert len(parsed.with_class("places")) == 1  # of the other phase


def test_a_thousand_ranks_stay_light() -> None:
    plan = large()
    text, parsed = page_of(plan)
    assert len(text.encode()) < 400_000
    assert len(parsed.with_class("machine")) <= MOST_NODES + 2


def test_a_step_of_too_many_tasks_shows_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainwright.compiler.page.gantt.MOST_TASKS", 100)
    plan = made_plan()
    own = plan.stage("4k")
    assert isinstance(own, PhaseStage)
    chart = gantt_of(own, plan.estimates[0])
    assert chart is not None
    assert chart.count == 100
    assert 0.1 < chart.shown < 0.9
    assert "% of the step is drawn" in page_of(plan)[1].text


def test_without_times_the_page_is_still_there() -> None:
    nothing = dict.fromkeys(
        ("step", "tokens_per_s", "mfu", "goodput", "duration_s", "duration_low_s", "duration_high_s", "gpu_hours",
         "energy_kwh", "cost", "cost_low", "cost_high", "capacity_bytes")
    )  # fmt: skip
    plan = made_plan()
    _, parsed = page_of(replace(plan, estimates=tuple(replace(each, **nothing) for each in plan.estimates)))
    assert "not known: the fullest rank" in parsed.text
    assert "No peak of the device is known, so no time and no cost." in parsed.text
    assert not parsed.with_class("gantt")


def test_it_is_written_as_a_whole(tmp_path: Path) -> None:
    plan = made_plan()
    write_page(plan, made_verdicts(plan), tmp_path / "new" / "plan.html")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["plan.html"]


def test_nothing_is_left_where_it_cannot_be_written(tmp_path: Path) -> None:
    plan = made_plan()
    (tmp_path / "plan.html").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_page(plan, made_verdicts(plan), tmp_path / "plan.html")
    assert [file.name for file in tmp_path.iterdir()] == ["plan.html"]
