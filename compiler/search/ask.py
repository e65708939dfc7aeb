"""The question that a phase of a draft asks of the search."""

from trainwright.compiler.draft import Draft
from trainwright.compiler.search.question import Question


def question_of(draft: Draft, index: int) -> Question:
    """Needs "spec.cluster", "spec.kernels", "spec.phases", "spec.run", "model", "courses" and "open_topologies"."""
    cluster, course = draft.spec.cluster, draft.courses[index]
    storage_bytes_per_s = cluster.nodes * cluster.storage.per_node
    if cluster.storage.total is not None:
        storage_bytes_per_s = min(storage_bytes_per_s, cluster.storage.total)
    return Question(
        phase=draft.spec.phases[index].name,
        model=draft.model,
        precision=draft.spec.run.precision,
        sequence_length=draft.spec.phases[index].sequence_length,
        sequences=course.sequences_per_step,
        steps=course.steps,
        topology=draft.open_topologies[index],
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        storage_bytes_per_s=storage_bytes_per_s,
        everything=draft.request is not None and draft.request.everything,
        loss=draft.spec.kernels.loss,
    )
