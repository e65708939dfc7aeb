"""The page: one file, well formed, self-contained, and safe whatever the run wrote."""

import json
import re

import pytest
from tests.page import Page

from trainwright.runtime.report.write import write_report

HOSTILE = '</pre><script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>\'"&{{ 7*7 }}'


def page(run) -> tuple[str, Page]:
    text = write_report(run.folder).read_text(encoding="utf-8")
    return text, Page(text)


def test_a_finished_run_has_every_section(run) -> None:
    run.all_stages()
    text, parsed = page(run)
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "Stages", "Planned beside measured", "Curves", "Held-out text", "Samples", "Data", "How to do it again",
        "Values nobody wrote",
    ]  # fmt: skip
    assert "157,760 parameters · 3 phases · 589,824 tokens · last training loss" in parsed.text
    assert "眠不觉晓，处处闻啼鸟。" in text
    assert "trainwright run examples/tiny.toml -y" in parsed.text


def test_the_page_needs_nothing_from_outside(run) -> None:
    run.all_stages()
    text, parsed = page(run)
    for tag, attributes in parsed.tags:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
        assert not {"src", "href", "xlink:href", "action"} & set(attributes), tag
    assert "url(" not in text
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, never fetched


def test_text_of_the_run_is_data(run) -> None:
    run.all_stages()
    run.samples("enhance", [(HOSTILE, HOSTILE)])
    run.event("run_started", 300)
    run.event("stage_failed", 301, level="error", stage="ingest", error=HOSTILE, traceback=HOSTILE)
    (run.folder / "spec.toml").write_text(HOSTILE)
    text, parsed = page(run)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert "<script>alert" not in text
    assert "{{ 7*7 }}" in parsed.text
    assert HOSTILE in "".join(parsed.texts)


def test_white_space_of_a_sample_is_kept(run) -> None:
    run.all_stages()
    text, _ = page(run)
    assert "<pre><b>def </b>main(argv=None):\n\tif argv is None:\n\t\targv" in text


def test_a_failure_stands_before_everything_else(run) -> None:
    run.event("run_started", 0)
    run.data_stages()
    run.begin("short")
    run.metrics("short", 57)
    run.log("short", ["the last words"])
    run.event("worker_failed", 3, level="error", stage="short", rank=0, error="ValueError: no", traceback="Traceback")
    run.event("run_ended", 4, exit_code=1)
    text, parsed = page(run)
    assert text.index("What went wrong") < text.index("ValueError: no") < text.index("the last words")
    assert text.index("the last words") < text.index("<h2>Stages")
    assert "step 57 of 120" in parsed.text
    assert "233,472 of 589,824 tokens" in parsed.text
    assert f"trainwright resume {run.folder}" in parsed.text


@pytest.mark.parametrize("stage", [None, "ingest", "short", "evaluate-short"])
def test_a_run_that_stopped_anywhere_has_a_page(run, stage: str | None) -> None:
    if stage:
        run.event("run_started", 0)
        run.begin(stage)
    text, parsed = page(run)
    assert ("interrupted" if stage else "waiting") in text[: text.index("</h1>")]
    assert "No step was logged yet." in parsed.text
    assert "Nothing was evaluated yet." in parsed.text


def test_a_broken_file_is_told_on_the_page(run) -> None:
    run.all_stages()
    (run.folder / "events.jsonl").write_text("nonsense\n")
    _, parsed = page(run)
    assert "`events.jsonl` cannot be read: line 1: Expecting value" in parsed.text


def test_the_best_score_of_a_row_is_marked_wherever_it_is(run) -> None:
    run.all_stages()  # enhance: 1.6, 1.7, 1.8; xz: 1.75
    text, _ = page(run)
    assert re.findall(r'class="n best">([\d.]+)', text) == ["1.600", "1.700", "1.750"]


def test_the_values_behind_a_chart_are_those_of_the_metrics(run) -> None:
    run.all_stages()
    _, parsed = page(run)
    plots = [
        json.loads(attributes["data-values"] or "") for _, attributes in parsed.tags if "data-values" in attributes
    ]
    name, values = plots[0][0]
    assert (name, len(values)) == ("total", 144)
    assert values[0][0] == 4096
    assert values[-1][0] == 144 * 4096
    throughput = dict(plots[2])["tokens a second"]
    assert throughput[0][1] == pytest.approx(2 * 12_000)  # two ranks
