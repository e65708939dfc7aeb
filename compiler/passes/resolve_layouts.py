"""Each phase's layout, with nothing left to choose."""

from trainwright.compiler.batching import choose_micro_batch
from trainwright.compiler.draft import Draft, Pass, SizedTopology
from trainwright.compiler.exchange import context_exchange
from trainwright.spec.plan import Layout
from trainwright.spec.topology import RecomputeModule


def resolve_layouts(draft: Draft) -> None:
    draft.layouts = tuple(_layout(draft, index) for index in range(len(draft.topologies)))


def _layout(draft: Draft, index: int) -> Layout:
    topology, data = draft.topologies[index], draft.data_ranks[index]
    per_rank = draft.courses[index].sequences_per_step // data
    micro_batch = (
        choose_micro_batch(
            per_rank, draft.spec.phases[index].sequence_length, topology.pipeline, topology.virtual_pipeline
        )
        if topology.micro_batch == "auto"
        else topology.micro_batch
    )
    if micro_batch is None:
        raise RuntimeError(f"phase {index} has no micro-batch: check_batches let it pass")
    return Layout(
        tensor=topology.tensor,
        pipeline=topology.pipeline,
        virtual_pipeline=topology.virtual_pipeline,
        context=topology.context,
        data=data,
        sequence_parallel=topology.tensor > 1 and topology.sequence_parallel is not False,
        zero=topology.zero,
        zero_group=(topology.zero_group or data) if topology.zero else 1,
        micro_batch=micro_batch,
        micro_batches=per_rank // micro_batch,
        recompute=topology.recompute,
        recompute_modules=_modules(topology),
        recompute_layers=topology.recompute_layers,
        offload=topology.offload,
        weight=topology.weight,
        keep_gathered=topology.tensor_mode == "msp",
        context_exchange=context_exchange(topology),
        schedule="interleaved" if topology.virtual_pipeline > 1 else "1f1b",  # check_layouts: as written, if written
    )


def _modules(topology: SizedTopology) -> tuple[RecomputeModule, ...]:
    if topology.recompute != "selective":
        return ()
    return topology.recompute_modules or ("core_attention",)


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
