"""The devices a run has, with the figures that estimates need."""

import msgspec

from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.device import load_hardware
from trainwright.spec.plan import Hardware


def resolve_hardware(draft: Draft) -> None:
    cluster = draft.spec.cluster
    device = load_hardware(cluster.gpu, draft.root)
    if device is None:
        raise RuntimeError(f"`{cluster.gpu}` is no known hardware: check_hardware let it pass")
    device = device.of_rank(cluster.gpus_per_node)
    if cluster.network.per_gpu is not None and device.links.network is not None:
        network = msgspec.structs.replace(device.links.network, bytes_per_s=cluster.network.per_gpu)
        device = msgspec.structs.replace(device, links=msgspec.structs.replace(device.links, network=network))
    draft.hardware = Hardware(
        name=cluster.gpu,
        device=device.device,
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        memory_bytes=device.memory_bytes,
        peak_flops=device.peak(draft.spec.run.precision),
        price_per_gpu_hour=cluster.price_per_gpu_hour,
        figures=device,
    )


RESOLVE_HARDWARE = Pass(resolve_hardware, needs=("spec.cluster", "spec.run", "gpu is known"), gives=("hardware",))
