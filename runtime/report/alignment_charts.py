"""The charts of alignment: each kind of stage on an axis of its own steps, rounds one after the other."""

from statistics import fmean

from trainwright.runtime.report import quantity
from trainwright.runtime.report.alignment_facts import RewardFacts
from trainwright.runtime.report.charts import Chart, Series
from trainwright.runtime.report.curves import BY_SOURCE
from trainwright.runtime.report.facts import Curve, RunFacts
from trainwright.runtime.report.tracks import Track, chart, in_a_row, keys, series
from trainwright.spec.plan import DpoStage, PpoStage, RewardStage, SftStage, TrainingStage

_POINTS = 60  # of a round in the chart of reward against KL: more cannot be told apart
_BY_DOMAIN = "ppo_reward_by_domain/"


def sft_loss(facts: RunFacts) -> Chart | None:
    """Loss on what is trained, total and by source."""
    tracks = tracks_of(facts, SftStage)
    lines = [series("total", tracks, "train/loss")]
    lines += [series(key.removeprefix(BY_SOURCE), tracks, key) for key in keys(tracks, BY_SOURCE)]
    return chart("Loss", "nats per trained token", tracks, lines, _precise, x="steps", log=True)


def dpo_charts(facts: RunFacts) -> list[Chart | None]:
    tracks = tracks_of(facts, DpoStage)
    names = {"margin": "dpo/margin_mean", "chosen": "dpo/chosen_reward", "rejected": "dpo/rejected_reward"}
    rewards = [series(name, tracks, key) for name, key in names.items()]
    return [
        chart("Loss", "ln 2 where it starts", tracks, [series("loss", tracks, "dpo/loss")], _precise, x="steps"),
        _percent("Accuracy", "per cent of the step's pairs", tracks, "dpo/acc", "steps"),
        chart("Rewards", "beta × log-probability over the start's", tracks, rewards, x="steps"),
    ]


def reward_charts(facts: RunFacts) -> list[Chart | None]:
    tracks = tracks_of(facts, RewardStage)
    losses = [series("with the barrier", tracks, "rm/loss"), series("ranking", tracks, "rm/ranking_loss")]
    names = {"chosen": "rm/chosen_mean", "rejected": "rm/rejected_mean"}
    scores = [series(name, tracks, key) for name, key in names.items()]
    saturated = [series("saturated", tracks, "rm/saturated_pct")]
    return [
        chart("Loss", "nats a pair", tracks, losses, _precise, x="steps"),
        _percent("Accuracy", "per cent of the step's pairs", tracks, "rm/acc", "steps"),
        chart("Scores", "means", tracks, scores, x="steps"),
        chart("Saturated", "per cent of scores beyond the barrier's bound", tracks, saturated, x="steps", zero=True),
        _calibration(facts.alignment.reward),
    ]


def ppo_charts(facts: RunFacts) -> list[Chart | None]:
    tracks = tracks_of(facts, PpoStage)
    rewards = [series("mean", tracks, "ppo/reward_mean"), series("spread", tracks, "ppo/reward_std")]
    rewards += [series(key.removeprefix(_BY_DOMAIN), tracks, key) for key in keys(tracks, _BY_DOMAIN)]

    def one(title: str, unit: str, key: str, factor: float = 1.0, *, zero: bool = False) -> Chart | None:
        lines = [series(title.lower(), tracks, key, [factor] * len(tracks))]
        return chart(title, unit, tracks, lines, x="iterations", zero=zero)

    return [
        chart("Reward", "scores: mean, standard deviation, mean by domain", tracks, rewards, x="iterations"),
        one("KL to the reference", "nats an answer", "ppo/kl_ref"),
        one("Response length", "tokens, mean", "ppo/response_len_mean", zero=True),
        one("Truncated", "per cent of answers", "ppo/truncated_pct", zero=True),
        one("Entropy", "nats a token", "ppo/entropy"),
        one("Clipped", "per cent of tokens", "ppo/clip_frac", 100.0, zero=True),
        one("Pre-training loss", "nats a token of text", "ppo/ptx_loss"),
        one("Value loss", "", "ppo/value_loss", zero=True),
        one("Explained variance", "of returns, by the critic", "ppo/explained_var"),
    ]


def reward_against_kl(facts: RunFacts) -> Chart | None:
    """Mean reward over KL to the reference, a line a round, through its iterations in order."""
    lines = []
    for track in tracks_of(facts, PpoStage):
        points = reward_over_kl(track.curve, _POINTS)
        if points:
            notes = tuple(f"iteration {iteration:,}" for _, _, iteration in points)
            lines.append(Series(track.name, (tuple((kl, reward) for kl, reward, _ in points),), notes))
    if not lines:
        return None
    divergences = [kl for line in lines for kl, _ in line.points]
    low, high = min(*divergences, 0.0), max(divergences)
    return Chart(
        title="Reward against KL",
        x="nats of KL to the reference, an answer",
        y="mean score of an iteration's answers",
        series=tuple(lines),
        marks=(),
        x_end=high + ((high - low) * 0.02 or 1.0),
        show_x=quantity.short,
        show_y=quantity.short,
        x_start=low,
        path=True,
    )


def reward_over_kl(curve: Curve, most: int) -> list[tuple[float, float, int]]:
    """(KL to the reference, mean reward, iteration) in order; means over stretches if there are more than `most`."""
    rewards = dict(curve.values("ppo/reward_mean"))
    both = [(kl, rewards[step], step) for step, kl in curve.values("ppo/kl_ref") if step in rewards]
    size = max(1, -(-len(both) // most))
    parts = [both[first : first + size] for first in range(0, len(both), size)]
    return [(fmean(kl for kl, _, _ in part), fmean(reward for _, reward, _ in part), part[-1][2]) for part in parts]


def tracks_of(facts: RunFacts, kind: type[TrainingStage]) -> list[Track]:
    """All stages of the kind on one axis of steps. Where the plan leaves their number open it is what was logged."""
    stages = [stage for stage in facts.plan.stages if isinstance(stage, kind)]
    return in_a_row([(facts.curve(stage.name), stage.steps or facts.curve(stage.name).steps, 1) for stage in stages])


def _percent(title: str, unit: str, tracks: list[Track], key: str, x: str) -> Chart | None:
    lines = [series(title.lower(), tracks, key, [100.0] * len(tracks))]
    return chart(title, unit, tracks, lines, x=x)


def _calibration(rewards: tuple[RewardFacts, ...]) -> Chart | None:
    """How often a reward model is right, by how sure it is; on the first line if it knows itself."""
    lines = [
        Series(each.stage, (tuple((100 * bin_.confidence, 100 * bin_.accuracy) for bin_ in bins),))
        for each in rewards
        if each.statistics and (bins := each.statistics.calibration.bins)
    ]
    if not lines:
        return None
    return Chart(
        title="Calibration",
        x="per cent: the model's own odds for the answer it prefers",
        y="per cent of pairs in which it is right",
        series=(Series("right as often as sure", (((50.0, 50.0), (100.0, 100.0)),)), *lines),
        marks=(),
        x_end=102.0,
        show_x=quantity.short,
        show_y=quantity.short,
        x_start=50.0,
        newest=False,
    )


def _precise(value: float) -> str:
    return f"{value:.3g}"
