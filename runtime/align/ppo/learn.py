"""The actor's optimizer steps of an iteration."""

from trainwright.runtime.align.ppo.iteration import Experience
from trainwright.runtime.align.ppo.losses import PolicyLoss, PolicyTargets
from trainwright.runtime.align.ppo.models import Learner
from trainwright.runtime.align.ppo.queries import passes
from trainwright.runtime.align.ppo.rows import Rows
from trainwright.runtime.align.ppo.text import Text
from trainwright.runtime.train.language import MicroBatch
from trainwright.spec.plan import PpoStage


def learn_policy(
    stage: PpoStage, actor: Learner, experience: Experience, text: Text | None, iteration: int, rate: float
) -> tuple[dict[str, float], dict[str, int]]:
    """The actor has made its steps; the metrics, and the tokens of text by source. A collective."""
    lengths_R = experience.judged.rollouts.lengths_R
    targets = PolicyTargets.of(experience.judged.log_probs_N, experience.advantages_N)
    steps = stage.epochs * stage.mini_batches
    names = text.names if text is not None else ()
    own, of_text = [0.0] * PolicyLoss.OWN, [0.0] * (3 * len(names))
    norms, consumed = [], dict.fromkeys(names, 0)
    with actor.learning():
        for number, answers in enumerate(passes(stage, len(lengths_R), iteration)):
            batches: list[Rows | MicroBatch] = [*experience.packer.micro_batches(answers)]
            loss = PolicyLoss(targets, stage.clip)
            if text is not None and stage.pretrain is not None:
                taken = text.take(iteration * steps + number, experience.packer.tokens(answers))
                scale = stage.pretrain.weight * int(lengths_R[answers].sum()) / taken.labels
                loss = PolicyLoss(targets, stage.clip, names, scale)
                batches += taken.micro_batches
                consumed = {name: consumed[name] + count for name, count in taken.tokens.items()}
            figures, norm = actor.step(loss, batches, rate)
            own = [a + b for a, b in zip(own, figures, strict=False)]
            of_text = [a + b for a, b in zip(of_text, figures[PolicyLoss.OWN :], strict=True)]
            norms.append(norm)
    policy, clipped, kl = (value / (experience.packer.count * stage.epochs) for value in own)
    metrics = {
        "ppo/policy_loss": policy,
        "ppo/clip_frac": clipped,
        "ppo/approx_kl": kl,
        "ppo/actor_grad_norm": sum(norms) / len(norms),
    }
    if names:
        losses, labels = of_text[: len(names)], of_text[len(names) : 2 * len(names)]
        metrics["ppo/ptx_loss"] = sum(losses) / sum(labels)
    return metrics, consumed
