"""Each phase's layout, with nothing left to choose."""

from trainwright.compiler.draft import Draft, Pass
from trainwright.compiler.training import layout_of


def resolve_layouts(draft: Draft) -> None:
    draft.layouts = tuple(
        layout_of(
            topology,
            data=draft.data_ranks[index],
            sequences_per_step=draft.courses[index].sequences_per_step,
            sequence_length=draft.spec.phases[index].sequence_length,
        )
        for index, topology in enumerate(draft.topologies)
    )


RESOLVE_LAYOUTS = Pass(
    resolve_layouts,
    needs=(
        "spec.phases",
        "courses",
        "topologies",
        "data_ranks",
        "layouts fit the model",
        "layout options are sound",
        "batches are whole",
    ),
    gives=("layouts",),
)
