"""What a round of PPO is found to exploit, whom is asked, and what becomes of the labels."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from trainwright.runtime.align.data.encode import encode_prompt
from trainwright.runtime.align.data.messages import PromptRow, parse_row
from trainwright.runtime.align.data.rows import RankedRows, rows_folder
from trainwright.runtime.align.online import stage as online
from trainwright.runtime.align.online.answers import Answer, Asked
from trainwright.runtime.align.online.candidates import choose_candidates
from trainwright.runtime.align.online.exploits import find_exploits, repeated
from trainwright.runtime.align.online.labeller import ask
from trainwright.runtime.align.online.labels import agreement, read_labels
from trainwright.runtime.data.errors import DataError
from trainwright.runtime.data.vocabulary import Vocabulary
from trainwright.spec.plan import LabelFile, LabellerPlan, OnlineStage

TOKENIZER = Path(__file__).parents[3] / "cases" / "chat"
PLAIN = ["It is cold.", "A cat sat here.", "Seven days.", "Ask me later.", "The sea is blue."]


def answer(model: str, text: str, score: float = 0.0) -> Answer:
    return Answer(model, text, tuple(range(len(text.split()))), score, 0.0, False)


def asked(late: list[str], early: list[str] = PLAIN, scores: tuple[float, float, float] = (0, 0, 1)) -> list[Asked]:
    found = []
    for number, (first, last) in enumerate(zip(early, late, strict=True)):
        texts = {"start": PLAIN[number], "early": first, "late": last}
        answers = {model: answer(model, texts[model], scores[place]) for place, model in enumerate(texts)}
        found.append(Asked(f"q{number}", "default", True, (1, 2, 3), answers))
    return found


def kinds(*of: Any) -> list[str]:
    return [exploit.kind for exploit in find_exploits(*of)]


def test_a_round_that_changed_little_shows_nothing() -> None:
    assert kinds(asked(PLAIN[1:] + PLAIN[:1]), 5.0, 0.9) == []


def test_a_word_that_a_reward_model_loves_is_found() -> None:
    (found,) = find_exploits(asked([f"{text} Certainly!" for text in PLAIN]), 5.0, None)
    assert (found.kind, found.word, found.before, found.after) == ("word", "certainly", 0.0, 1.0)


@pytest.mark.parametrize(
    ("late", "kind"),
    [([f"{text} And so on and on we go from here to there." for text in PLAIN], "length"), (["No."] * 5, "length")],
)
def test_answers_that_grow_or_shrink_are_found(late: list[str], kind: str) -> None:
    assert kind in kinds(asked(late), 5.0, None)


def test_repetition_is_found() -> None:
    assert repeated("one two three one two three one two three") == pytest.approx(4 / 7)
    assert "repetition" in kinds(asked([" ".join([text] * 4) for text in PLAIN]), 5.0, None)


def test_saturated_scores_and_a_reward_without_agreement_are_found() -> None:
    assert kinds(asked(PLAIN, scores=(0, 1, 4.9)), 5.0, 0.2) == ["saturation", "divorce"]
    assert kinds(asked(PLAIN, scores=(0, 1, 2)), 5.0, None) == []


def test_pairs_that_show_an_exploit_come_first() -> None:
    late = [*PLAIN[:3], "Ask me later, certainly.", "The sea is certainly blue."]
    rows = asked([*late[:4], "Certainly."], scores=(0, 0, 1))
    exploits = find_exploits(rows, 5.0, None)
    chosen = choose_candidates(rows, exploits, round_=1, fast=1, slow=10)
    assert [each.path for each in chosen] == ["fast", "slow"]
    assert chosen[0].why
    assert len({each.id for each in chosen}) == len(chosen)


def test_the_order_of_two_answers_tells_nothing() -> None:
    rows = [
        Asked(f"q{number}", "d", True, (1,), {m: answer(m, f"{m} {number}") for m in ("start", "early", "late")})
        for number in range(40)
    ]
    firsts = [each.answers[0].model for each in choose_candidates(rows, [], round_=1, fast=40, slow=0)]
    assert 10 < firsts.count("late") < 30


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_of_several_files_and_tools_are_read(tmp_path: Path) -> None:
    lines = written(
        tmp_path / "a.jsonl", {"id": "x", "choice": 1}, {"id": "y", "choice": "tie"}, {"id": "?", "choice": 0}
    )
    studio = tmp_path / "b.json"
    result = [{"type": "pairwise", "value": {"selected": "left"}}]
    studio.write_text(json.dumps([{"data": {"id": "z"}, "annotations": [{"result": result}]}]))
    direct = written(tmp_path / "c.jsonl", {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go."})
    labels = read_labels([lines, studio, direct], ["x", "y", "z"])
    assert labels.choices == {"x": 1, "y": None, "z": 0}
    assert (labels.foreign, len(labels.rows)) == (1, 1)


def test_labels_that_contradict_each_other_are_a_tie(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", {"id": "x", "choice": 1}, {"id": "x", "choice": 0})
    assert read_labels([path], ["x"]).choices == {"x": None}


@pytest.mark.parametrize("row", [{"id": "x", "choice": 2}, {"id": "x"}, {"choice": True, "id": "x"}, 7])
def test_a_bad_label_is_told_with_its_line(tmp_path: Path, row: Any) -> None:
    path = written(tmp_path / "a.jsonl", {"id": "x", "choice": 0}, row)
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        read_labels([path], ["x"])


def test_agreement_is_of_the_scores_order_with_the_labels() -> None:
    rows = asked([f"{text} More." for text in PLAIN], scores=(0, 0, 1))
    candidates = choose_candidates(rows, [], round_=1, fast=5, slow=0)
    late = {each.id: [a.model for a in each.answers].index("late") for each in candidates}
    assert agreement(candidates, late) == 1.0
    assert agreement(candidates, {id_: 1 - choice for id_, choice in late.items()}) == 0.0
    assert agreement(candidates, {}) is None


def labeller(**given: Any) -> LabellerPlan:
    nothing: dict[str, Any] = {"command": None, "endpoint": None, "model": None, "api_key": None, "timeout_s": 20.0}
    return LabellerPlan(**nothing | given)


CANDIDATE = {
    "id": "x",
    "domain": "default",
    "prompt": [{"role": "user", "content": "Hi"}],
    "answers": [{"text": "good", "score": 0}, {"text": "bad", "score": 0}],
}


def test_a_program_labels(tmp_path: Path) -> None:
    code = "import sys, json; [print(json.dumps({'id': json.loads(l)['id'], 'choice': 0})) for l in sys.stdin]"
    rows = ask(labeller(command=(sys.executable, "-c", code)), [CANDIDATE], tmp_path)
    assert rows == [{"id": "x", "choice": 0}]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit('no key for the judge')", "exit code 1: no key for the judge"),
        ("print('hello')", "no JSON object in line 1"),
        ("import time; time.sleep(60)", "longer than"),
    ],
)
def test_a_program_that_fails_is_told(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ask(labeller(command=(sys.executable, "-c", code), timeout_s=2.0), [CANDIDATE], tmp_path)


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be started"):
        ask(labeller(command=("no-such-program",)), [CANDIDATE], tmp_path)


@pytest.fixture
def judge() -> Iterator[tuple[str, list[Any]]]:
    """An endpoint that prefers the answer `good`, or A where there is none; what it was sent."""
    sent: list[Any] = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sent.append((body, self.headers.get("Authorization")))
            first = body["messages"][0]["content"].partition("Answer A:\n")[2]
            reply = "B" if "good" in first.partition("Answer B:")[2] else "A"
            data = json.dumps({"choices": [{"message": {"content": reply}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", sent
    server.shutdown()
    server.server_close()


def test_an_endpoint_counts_only_if_it_says_the_same_in_both_orders(
    judge: tuple[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, sent = judge
    monkeypatch.setenv("JUDGE", "secret")
    asks = labeller(endpoint=endpoint, model="judge", api_key="env:JUDGE")
    undecided = {**CANDIDATE, "id": "y", "answers": [{"text": "so"}, {"text": "la la"}]}
    rows = ask(asks, [CANDIDATE, undecided], tmp_path)
    assert rows == [{"id": "x", "choice": 0}, {"id": "y", "choice": "tie"}]
    assert {header for _, header in sent} == {"Bearer secret"}
    assert sent[0][0]["model"] == "judge"


def test_a_secret_that_is_not_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="NO_SUCH_KEY, which is not set"):
        ask(labeller(endpoint="http://127.0.0.1:9/v1", api_key="env:NO_SUCH_KEY"), [CANDIDATE], tmp_path)


# --- the stage -------------------------------------------------------------------------------------------------------


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A PPO stage's probes: late answers say `certainly` wherever they can."""
    vocabulary = Vocabulary(TOKENIZER)
    rows = []
    for number, text in enumerate(PLAIN):
        parsed = parse_row(json.dumps({"prompt": f"Question {number}?"}).encode(), "prompts")
        assert isinstance(parsed, PromptRow)
        prompt = encode_prompt(parsed.prompt, vocabulary, code_newline=True)
        for model, said in (("start", text), ("early", text), ("late", f"{text} Certainly.")):
            rows.append(
                {
                    "query": f"{number}",
                    "model": model,
                    "domain": "default",
                    "split": "held_out" if number % 2 else "train",
                    "prompt_tokens": prompt,
                    "answer": said,
                    "answer_tokens": [*vocabulary.encode(said), vocabulary.special_tokens["<|im_end|>"]],
                    "score": (2.0 if model == "late" else 0.5) + (0.0 if number % 2 else 9.0),  # of the compared
                    "kl": 0.1,
                    "truncated": False,
                }
            )
    ppo = tmp_path / "ppo"
    ppo.mkdir()
    written(ppo / "probes.jsonl", *rows)
    return {"tokenizer": TOKENIZER, "ppo@1": ppo}


def stage(**given: Any) -> OnlineStage:
    values: dict[str, Any] = {
        "name": "online@1",
        "needs": ("tokenizer", "ppo@1"),
        "round": 1,
        "ppo": "ppo@1",
        "reward": "reward@1",
        "fast_pairs": 20,
        "slow_pairs": 0,
        "labels": (),
        "labeller": None,
        "barrier_bound": 5.0,
        "held_out": 0.0,
        "seed": 1,
    }
    return OnlineStage(**values | given)


def run(made: OnlineStage, inputs: dict[str, Path], root: Path) -> tuple[dict[str, Any], Path, list[str]]:
    out = root / "out"
    out.mkdir()
    said: list[str] = []
    return online.run(made, root=root, inputs=inputs, out=out, progress=said.append), out, said


def test_a_round_without_labels_goes_on_and_says_so(inputs: dict[str, Path], tmp_path: Path) -> None:
    summary, out, said = run(stage(), inputs, tmp_path)
    assert (summary["candidates"], summary["pairs"], summary["agreement"]) == (5, 0, None)
    assert any("certainly" in line for line in said)
    assert any("no labels" in line for line in said)
    assert (summary["reward_start"], summary["reward_late"]) == (0.5, 2.0)  # of held-out queries alone
    assert not rows_folder(out, "patches", "train").exists()


def test_candidates_can_be_read_by_a_person(inputs: dict[str, Path], tmp_path: Path) -> None:
    _, out, _ = run(stage(), inputs, tmp_path)
    row = json.loads((out / "candidates.jsonl").read_text().splitlines()[0])
    assert row["prompt"][0]["role"] == "user"
    assert row["prompt"][0]["content"].startswith("Question")
    assert {answer["from"] for answer in row["answers"]} == {"early", "late"}
    assert "`certainly` stands in 100% of the answers, after 0%" in row["why"]


def test_confirmed_pairs_are_rows_for_the_next_reward_model(inputs: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys, json\n"
        "for line in sys.stdin:\n"
        "    row = json.loads(line)\n"
        "    choice = [answer['from'] for answer in row['answers']].index('early')\n"
        "    print(json.dumps({'id': row['id'], 'choice': choice}))\n"
    )
    made = stage(labeller=labeller(command=(sys.executable, "-c", code)))
    summary, out, _ = run(made, inputs, tmp_path)
    assert (summary["labels"], summary["pairs"], summary["agreement"]) == (5, 5, 0.0)
    vocabulary = Vocabulary(inputs["tokenizer"])
    rows = RankedRows(out, "patches", "train")
    assert len(rows) == 5
    for row in rows:
        better, worse = (vocabulary.decode(answer.tolist()) for answer in row.answers)
        assert "Certainly" in worse
        assert "Certainly" not in better
    kinds_found = [each["kind"] for each in json.loads((out / "exploits.json").read_text())["exploits"]]
    assert "divorce" in kinds_found


def test_a_persons_label_stands_before_the_programs(inputs: dict[str, Path], tmp_path: Path) -> None:
    _, out, _ = run(stage(), inputs, tmp_path)
    ids = [json.loads(line)["id"] for line in (out / "candidates.jsonl").read_text().splitlines()]
    written(tmp_path / "mine.jsonl", *({"id": id_, "choice": "tie"} for id_ in ids[:2]))
    code = "import sys, json; [print(json.dumps({'id': json.loads(l)['id'], 'choice': 0})) for l in sys.stdin]"
    made = stage(
        labels=(LabelFile(path="mine.jsonl", digest=""),), labeller=labeller(command=(sys.executable, "-c", code))
    )
    (tmp_path / "second").mkdir()
    summary = online.run(made, root=tmp_path, inputs=inputs, out=tmp_path / "second", progress=lambda _: None)
    assert (summary["labels"], summary["pairs"]) == (5, 3)
