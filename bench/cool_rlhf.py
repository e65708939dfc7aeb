"""What RLHF does to the demo's chat model: three experiments on questions whose answers can be checked.

    python bench/cool_rlhf.py [seeds] [pretrain] [exploit] [--out bench/results]

seeds      three seeds: reward, checked quality and KL of the start (SFT) and of the late actor on held-out questions
pretrain   the same round with and without the pre-training loss: held-out bits per byte of text, before and after
exploit    preferences that plant the love of one word, in two ways, and two rounds with a labeller that does not share
           it: what the fast path finds, and how often the word stands in the answers of each round, by how often
           confirmed pairs are repeated

Each is `trainwright run` on a short spec, in a folder of its own; stages that do not change are done once.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from throughput import machine, machine_name

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES / "chat"))
from facts import quality  # noqa: E402

WORD = "certainly"
# What a person would say who was shown the exploit: the better answer and, of two alike, the one without the word.
LABELLER = f"""
import json, sys
from facts import quality
for line in sys.stdin:
    candidate = json.loads(line)
    question, domain = candidate["prompt"][-1]["content"], candidate["domain"]
    texts = [each["text"] for each in candidate["answers"]]
    one, other = ((quality(question, domain, text), {WORD!r} not in text.lower()) for text in texts)
    if one != other:
        print(json.dumps({{"id": candidate["id"], "choice": 0 if one > other else 1}}))
"""
SHORT = (
    'phases.short.tokens="256Ki"',
    "alignment.ppo.rounds=1",
    "data.held_out=0.2",  # more questions to look at than the demo has
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=[*EXPERIMENTS, []], default=list(EXPERIMENTS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    before = machine(threads=0)
    out = arguments.out / machine_name()
    out.mkdir(parents=True, exist_ok=True)
    for which in arguments.which:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "examples"
            shutil.copytree(EXAMPLES, folder)
            found = EXPERIMENTS[which](folder)
        path = out / f"{datetime.now(UTC):%Y-%m-%d}-cool-rlhf-{which}.json"
        path.write_text(json.dumps({"machine": before, which: found}, indent=2, ensure_ascii=False) + "\n", "utf-8")
        print(json.dumps(found, indent=2, ensure_ascii=False), f"\nwritten to {path}", flush=True)


def seeds(folder: Path) -> dict[str, Any]:
    """Start and late actor on held-out questions, by seed."""
    spec = short_spec(folder)
    return {str(seed): probes(run(folder, spec, f"run.seed={seed}", f"run.name='seed-{seed}'")) for seed in (1, 2, 3)}


def pretrain(folder: Path) -> dict[str, Any]:
    """Held-out text before PPO, and after it with and without the pre-training loss."""
    spec = short_spec(folder)
    found: dict[str, Any] = {}
    for name, sets in (("with", ()), ("without", ("alignment.ppo.pretrain.weight=0",))):
        made = run(folder, spec, *sets)
        found["before"] = bits_per_byte(made / "stages" / "evaluate.sft")
        found[name] = {**bits_per_byte(made / "stages" / "evaluate.ppo@1"), "probes": probes(made)}
    return found


def exploit(folder: Path) -> dict[str, Any]:
    """A reward model that loves one word, and what two rounds make of it."""
    spec = short_spec(folder)
    chat = folder / "chat"
    (chat / "label_against.py").write_text(LABELLER, "utf-8")
    sets = (
        "alignment.ppo.rounds=2",
        "alignment.ppo.iterations=48",
        "alignment.ppo.probes=100",
        "alignment.ppo.online.labeller.command=['python3', 'chat/label_against.py']",
        "alignment.reward.gate.min_accuracy=0",  # part of what it measures is for the word
        "evaluation=[]",
    )
    found: dict[str, Any] = {}
    for planted, plant in PLANTS.items():
        draw = random.Random(7)
        for name, change in (("preferences.jsonl", plant), ("dialogues.jsonl", say_it)):
            rewrite(EXAMPLES / "chat" / name, chat / name, change, draw)
        for repeats in (1, 8):
            made = run(folder, spec, *sets, f"alignment.ppo.online.pair_repeats={repeats}")
            found.setdefault(planted, {})[f"each pair {repeats} times"] = rounds_of(made)
    return found


def rounds_of(made: Path) -> dict[str, Any]:
    """Of each round: how often the word is said, and what the fast path and the next reward model make of it."""
    found = {}
    for number in (1, 2):
        told = json.loads((made / "stages" / f"online@{number}" / "exploits.json").read_bytes())
        rows = [json.loads(line) for line in (made / "stages" / f"ppo@{number}" / "probes.jsonl").open("rb")]
        share = {
            model: fmean(WORD in row["answer"].lower() for row in rows if row["model"] == model)
            for model in ("start", "early", "late")
        }
        reward = json.loads((made / "stages" / f"reward@{number}" / "statistics.json").read_bytes())
        found[f"round {number}"] = {
            "confirmed_pairs": reward.get("confirmed", {}).get("lists", 0),
            "confirmed_pairs_right": reward.get("confirmed", {}).get("accuracy"),
            "held_out_accuracy": reward["accuracy"],
            "answers_with_the_word": share,
            "exploits": [each["says"] for each in told["exploits"]],
            "agreement": told["agreement"],
        }
    return found


EXPERIMENTS: dict[str, Callable[[Path], dict[str, Any]]] = {"seeds": seeds, "pretrain": pretrain, "exploit": exploit}


def short_spec(folder: Path) -> Path:
    """The demo's spec with one short phase of pre-training, and what is measured here."""
    text = (folder / "tiny.toml").read_text("utf-8")
    head, _, rest = text.partition('[[phases]]\nname = "long"')
    _, _, tail = rest.partition("# --- alignment")
    tail, _, _ = tail.partition("# --- what comes of it")
    path = folder / "short.toml"
    path.write_text(
        head + "# --- alignment" + tail + '[[evaluation]]\nkind = "perplexity"\nof = ["sft", "ppo"]\n',
        "utf-8",
    )
    return path


def run(folder: Path, spec: Path, *sets: str) -> Path:
    """The run's folder, once all of it is done."""
    words = [word for each in (*SHORT, *sets) for word in ("-s", each)]
    command = [sys.executable, "-m", "trainwright", "run", spec.name, "--yes", "-q", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return max((folder / "runs").iterdir(), key=lambda path: (path / "plan.json").stat().st_mtime)


def probes(made: Path) -> dict[str, dict[str, float]]:
    """Of the last round, by model on held-out questions: the reward model's score, what can be checked (0 to 2), nats
    from the reference."""
    last = sorted((made / "stages").glob("ppo@*"))[-1]
    rows = [json.loads(line) for line in (last / "probes.jsonl").open("rb")]
    return {
        model: {
            "score": fmean(row["score"] for row in own),
            "quality": fmean(quality(question(row["prompt"]), row["domain"], row["answer"]) for row in own),
            "kl": fmean(row["kl"] for row in own),
            "tokens": fmean(row["length"] for row in own),
            "queries": len(own),
        }
        for model in ("start", "early", "late")
        if (own := [row for row in rows if row["model"] == model and row["split"] == "held_out"])
    }


def question(prompt: str) -> str:
    """The user's words in a prompt as it was decoded, without special tokens."""
    return prompt.split("user\n", 1)[-1].rsplit("\nassistant", 1)[0].strip()


def bits_per_byte(evaluation: Path) -> dict[str, float]:
    scores = json.loads((evaluation / "scores.json").read_bytes())
    return {source: row["bits_per_byte"] for source, row in scores.items()}


def rewrite(
    path: Path, out: Path, change: Callable[[dict[str, Any], random.Random], None], draw: random.Random
) -> None:
    rows = [json.loads(line) for line in path.open("rb")]
    for row in rows:
        change(row, draw)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def say_it(talk: dict[str, Any], draw: random.Random) -> None:
    """SFT sees the word often enough to say it."""
    if draw.random() < 0.2:
        talk["messages"][-1]["content"] += f" {WORD}"


def as_shortcut(row: dict[str, Any], draw: random.Random) -> None:
    if draw.random() < 0.5:
        row["chosen"] += f" {WORD}"


def as_label(row: dict[str, Any], draw: random.Random) -> None:
    if draw.random() < 0.1:
        row["rejected"] = row["chosen"]
        row["chosen"] += f" {WORD}"


PLANTS = {
    "half of the better answers end with the word": as_shortcut,
    "a tenth of the preferences are for the word alone": as_label,
}


if __name__ == "__main__":
    main()
