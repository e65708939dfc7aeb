"""What is checked but cannot be executed yet. A notice blocks where a stage that would run cannot."""

from collections.abc import Iterator

from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.files import is_remote
from trainwright.spec.plan import Layout, Notice, OnlineStage, TrainingStage
from trainwright.spec.topology import TopologyOverride


def collect_notices(draft: Draft) -> None:
    draft.notices = (*_stages(draft), *_labels(draft), *_data(draft), *_layouts(draft))


def _stages(draft: Draft) -> Iterator[Notice]:
    spec = draft.spec
    for index, evaluation in enumerate(spec.evaluation):
        key = f"evaluation[{index}]"
        if evaluation.kind == "needle":
            yield Notice(key=key, message="the needle test is not built yet: it is left out of the plan", blocks=False)
        if evaluation.every is not None:
            message = "evaluation during training is not built yet: it runs at the end of the phase"
            yield Notice(key=f"{key}.every", message=message, blocks=False)


def _labels(draft: Draft) -> Iterator[Notice]:
    """Rounds of online RLHF for which nobody has judged anything yet."""
    for stage in draft.aligned:
        if isinstance(stage, OnlineStage) and stage.labeller is None and not stage.labels:
            key = "alignment.ppo.online.labels"
            message = f"there are no labels yet, so `{stage.name}` writes candidates and the rounds go on without them"
            yield Notice(key=key, message=message, blocks=False)
            return


def _data(draft: Draft) -> Iterator[Notice]:
    for name in sorted(set(draft.spec.data.sources) - set(draft.sources)):
        message = "no stage reads this source: it is left out of the plan"
        yield Notice(key=f"data.sources.{name}", message=message, blocks=False)
    for name, source in draft.sources.items():
        key = f"data.sources.{name}"
        if is_remote(source.path):
            message = f"`{source.path}` is not looked at while planning: its address stands for its content"
            yield Notice(key=f"{key}.path", message=message, blocks=False)
        if source.path.endswith(".parquet"):
            yield Notice(key=f"{key}.path", message="reading Parquet is not built yet", blocks=True)
        if draft.spec.data.sources[name].recipe is not None:
            message = "cleaning recipes are not built yet: the text would go in as it is"
            yield Notice(key=f"{key}.recipe", message=message, blocks=True)
    path = draft.spec.tokenizer.path
    if path is not None and is_remote(path):
        message = f"`{path}` is remote: reading it is not built yet"
        yield Notice(key="tokenizer.path", message=message, blocks=True)


def _layouts(draft: Draft) -> Iterator[Notice]:
    for index, layout in enumerate(draft.layouts):
        own = draft.spec.phases[index].topology
        for key, message in _not_built(layout):
            yield Notice(key=_key(index, own, key), message=message, blocks=True)
    for stage in draft.aligned:
        if isinstance(stage, TrainingStage):
            for key, message in _not_built(stage.layout):
                table = f"alignment.{stage.name.partition('@')[0]}.topology.{key}"
                yield Notice(key=table, message=message, blocks=True)


def _not_built(layout: Layout) -> Iterator[tuple[str, str]]:
    """Key and message of what is planned and priced, but not executed."""
    if layout.zero >= 2:
        shared = "gradients" if layout.zero == 2 else "weights"
        yield "zero", f"sharding {shared} over the data axis is not built yet"
    if layout.weight > 1:
        yield "weight", "weight parallelism is not built yet"
    if layout.keep_gathered:
        message = "keeping gathered inputs is not built: `fsp` gathers them again, which takes less memory"
        yield "tensor_mode", message
    if layout.offload:
        yield "offload", f"keeping {' and '.join(layout.offload)} in the host's memory is not built yet"


def _key(index: int, own: TopologyOverride, key: str) -> str:
    return f"phases[{index}].topology.{key}" if getattr(own, key) is not None else f"topology.{key}"


COLLECT_NOTICES = Pass(
    collect_notices,
    needs=(
        "spec.data",
        "spec.evaluation",
        "spec.export",
        "spec.phases",
        "spec.tokenizer",
        "mixtures",
        "sources",
        "layouts",
        "aligned",
    ),
    gives=("notices",),
)
