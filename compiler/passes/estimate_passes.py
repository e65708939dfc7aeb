"""How often each phase reads the text of each source, where it is known or can be expected how much that is."""

from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.plan import PhaseStage


def estimate_passes(draft: Draft) -> None:
    trained = 1 - draft.spec.data.held_out
    draft.passes = {
        stage.name: {
            name: stage.tokens * share / (trained * tokens)
            for name, share in stage.mixture.items()
            if (tokens := draft.expected_tokens[name])
        }
        for stage in draft.graph
        if isinstance(stage, PhaseStage)
    }


ESTIMATE_PASSES = Pass(estimate_passes, needs=("graph", "expected_tokens", "spec.data"), gives=("passes",))
