"""The devices a run has, with the figures that estimates need."""

from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.device import load_hardware
from trainwright.spec.plan import Hardware


def resolve_hardware(draft: Draft) -> None:
    cluster = draft.spec.cluster
    file = load_hardware(cluster.gpu)
    if file is None:
        raise RuntimeError(f"`{cluster.gpu}` is no known hardware: check_hardware let it pass")
    draft.hardware = Hardware(
        name=cluster.gpu,
        device=file.device,
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        memory_bytes=file.memory_bytes,
        peak_flops=getattr(file.peak_flops, draft.spec.run.precision),
        price_per_gpu_hour=cluster.price_per_gpu_hour,
    )


RESOLVE_HARDWARE = Pass(resolve_hardware, needs=("spec.cluster", "spec.run", "gpu is known"), gives=("hardware",))
