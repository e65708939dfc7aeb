"""Every stage carries a fingerprint of all that determines its result, by way of what it needs."""

import msgspec

from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.graph import StageGraph
from trainwright.spec.plan import AnyStage, fingerprint


def fingerprint_stages(draft: Draft) -> None:
    known: dict[str, str] = {}
    stages: list[AnyStage] = []
    for stage in draft.named:
        known[stage.name] = fingerprint(stage, {need: known[need] for need in stage.needs})
        stages.append(msgspec.structs.replace(stage, fingerprint=known[stage.name]))
    draft.graph = StageGraph(stages)


FINGERPRINT_STAGES = Pass(fingerprint_stages, needs=("named",), gives=("graph",))
