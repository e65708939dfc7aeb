"""The axes of every layout multiply to the ranks that the cluster has."""

from collections.abc import Iterator

from trainwright.compiler.draft import Check, Draft
from trainwright.spec.diagnostics import Diagnostic


def check_world(draft: Draft) -> Iterator[Diagnostic]:
    cluster = draft.spec.cluster
    world = cluster.nodes * cluster.gpus_per_node
    ranks = f"{world:,} rank{'s' if world > 1 else ''}"
    for index, topology in enumerate(draft.topologies):
        axes = {name: getattr(topology, name) for name in ("tensor", "pipeline", "context")}
        product = topology.tensor * topology.pipeline * topology.context
        if topology.data != "auto":
            axes["data"] = topology.data
        fits = world % product == 0 if topology.data == "auto" else product * topology.data == world
        if fits:
            continue
        whole = product if topology.data == "auto" else product * topology.data
        wide = {name: size for name, size in axes.items() if size > 1} or axes
        said = " x ".join(f"{name} {size}" for name, size in wide.items())
        verb = "does not divide" if topology.data == "auto" else "is not"
        # The spot to look at: the widest axis that somebody stated.
        widest = max(wide, key=lambda name: wide[name])
        path = draft.topology_path(index, widest)
        product_text = f" = {whole:,}" if len(wide) > 1 else ""
        yield Diagnostic(
            "TW301",
            f"{said}{product_text} {verb} the cluster's {ranks}",
            draft.value_at(*path),
            _cure(draft, world, product, whole),
            draft.label(f"{cluster.nodes:,} x {cluster.gpus_per_node:,} = {ranks}", "cluster", "gpus_per_node"),
        )


def _cure(draft: Draft, world: int, product: int, whole: int) -> str:
    nodes = draft.spec.cluster.nodes
    wanted = f"gpus_per_node = {whole // nodes}" if whole % nodes == 0 else f"a cluster of {whole:,} ranks"
    if world % product == 0:
        return f"leave `data` to the compiler (it would be {world // product:,}), or take {_code(wanted)}"
    divisors = [n for n in range(1, world + 1) if world % n == 0]
    near = [n for n in divisors if n < product][-1:] + [n for n in divisors if n > product][:1]
    nearest = " or ".join(f"{n:,}" for n in near)
    return (
        f"tensor x pipeline x context must be one of the cluster's divisors, such as {nearest}; or take {_code(wanted)}"
    )


def _code(wanted: str) -> str:
    return f"`{wanted}`" if "=" in wanted else wanted


CHECK_WORLD = Check(check_world, needs=("spec.cluster", "spec.phases", "topologies"), holds="the world factors")
