"""How many data-parallel ranks each phase has: as written, or what the other axes leave of the world."""

from trainwright.compiler.draft import Draft, Pass


def resolve_data_axis(draft: Draft) -> None:
    world = draft.spec.cluster.nodes * draft.spec.cluster.gpus_per_node
    draft.data_ranks = tuple(world // (each.tensor * each.pipeline * each.context) for each in draft.topologies)


RESOLVE_DATA_AXIS = Pass(
    resolve_data_axis,
    needs=(
        "spec.cluster",
        "topologies",
        "the world factors",
    ),
    gives=("data_ranks",),
)
