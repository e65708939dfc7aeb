"""This process as a whole Megatron-core world of its own: evaluation, sampling and export need no other."""

from collections.abc import Iterator
from contextlib import contextmanager

from trainwright.runtime import host
from trainwright.spec.plan import Layout, PhaseStage, TrainingStage

ONE_PROCESS = Layout(
    tensor=1,
    pipeline=1,
    virtual_pipeline=1,
    context=1,
    data=1,
    sequence_parallel=False,
    zero=0,
    zero_group=1,
    micro_batch=1,
    micro_batches=1,
    recompute="none",
    schedule="1f1b",
)


@contextmanager
def one_process() -> Iterator[None]:
    """Inside the block, what needs Megatron-core may be imported, and models be built, loaded and asked."""
    host.install()
    from trainwright.runtime.train import parallel  # imports Megatron-core, so after the stand-ins

    parallel.single()
    try:
        yield
    finally:
        parallel.finalize()


def answers_in_chat(stage: TrainingStage) -> bool:
    """Whether the stage's model was last trained on conversations, and not on text."""
    return not isinstance(stage, PhaseStage)
