"""The stages of a run as the nodes of the drawn graph."""

from trainwright.runtime.report.facts import StageFacts
from trainwright.runtime.report.quantity import duration
from trainwright.spec.look.graph import Node

SIGNS = {"done": "✓", "reused": "↺", "running": "▸", "failed": "✗", "interrupted": "‖", "waiting": "·"}


def nodes(stages: tuple[StageFacts, ...]) -> list[Node]:
    """Each stage with what became of it, and how long it took where that is known."""
    return [
        Node(
            name=stage.name,
            needs=stage.needs,
            state=stage.state,
            title=f"{stage.name}: {stage.kind}, {stage.state}",
            below=f"{SIGNS[stage.state]} {stage.state if stage.duration_s is None else duration(stage.duration_s)}",
        )
        for stage in stages
    ]
