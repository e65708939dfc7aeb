"""What every training stage of a plan is given in the same way: its layout, optimizer, checkpoints and devices."""

from trainwright.compiler.batching import choose_micro_batch
from trainwright.compiler.draft import Draft, SizedTopology
from trainwright.compiler.exchange import context_exchange, context_heads
from trainwright.spec.plan import CheckpointPlan, Layout, OptimizerPlan, Placement
from trainwright.spec.topology import RecomputeModule
from trainwright.spec.units import Steps, interval


def layout_of(topology: SizedTopology, *, data: int, sequences_per_step: int, sequence_length: int) -> Layout:
    """The topology with nothing left to choose. The checks of layouts and batches let it pass."""
    per_rank = sequences_per_step // data
    micro_batch = (
        choose_micro_batch(per_rank, sequence_length, topology.pipeline, topology.virtual_pipeline)
        if topology.micro_batch == "auto"
        else topology.micro_batch
    )
    if micro_batch is None:
        raise RuntimeError(f"{per_rank} sequences have no micro-batch: the checks let it pass")
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
        context_heads=context_heads(topology),
        schedule="interleaved" if topology.virtual_pipeline > 1 else "1f1b",  # check_layouts: as written, if written
    )


def _modules(topology: SizedTopology) -> tuple[RecomputeModule, ...]:
    if topology.recompute != "selective":
        return ()
    return topology.recompute_modules or ("core_attention",)


def optimizer_plan(draft: Draft) -> OptimizerPlan:
    """That of `[optimizer]`."""
    own = draft.spec.optimizer
    return OptimizerPlan(kind=own.kind, betas=own.betas, eps=own.eps, weight_decay=own.weight_decay, clip=own.clip)


def checkpoint_plan(draft: Draft) -> CheckpointPlan:
    """That of `[run]`."""
    run = draft.spec.run
    every = interval(run.checkpoint.every)
    return CheckpointPlan(
        every_steps=every.steps if isinstance(every, Steps) else None,
        every_seconds=None if isinstance(every, Steps) else every.seconds,
        keep=run.checkpoint.keep,
    )


def devices_of(draft: Draft, ranks: int) -> Placement:
    """The nodes that hold so many ranks; which layers each holds is not said yet."""
    per_node = draft.spec.cluster.gpus_per_node
    return Placement(nodes=-(-ranks // per_node), ranks_per_node=per_node, chunks=())
