"""How often each phase reads the text of each source, where it is known or can be expected how much that is."""

from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.sources import expected_tokens
from trainwright.spec.plan import PhaseStage


def estimate_passes(draft: Draft) -> None:
    trained = 1 - draft.spec.data.held_out
    draft.passes = {}
    for stage in draft.graph:
        if isinstance(stage, PhaseStage):
            held = {name: expected_tokens(draft.root, draft.spec.data.sources[name]) for name in stage.mixture}
            draft.passes[stage.name] = {
                name: stage.tokens * share / (trained * tokens)
                for name, share in stage.mixture.items()
                if (tokens := held[name])
            }


ESTIMATE_PASSES = Pass(estimate_passes, needs=("graph", "spec.data"), gives=("passes",))
