"""What is checked but cannot be executed yet. A notice blocks where a stage that would run cannot."""

from collections.abc import Iterator

from trainwright.compiler.draft import Draft, Pass
from trainwright.spec.files import is_remote
from trainwright.spec.plan import Layout, Notice
from trainwright.spec.topology import TopologyOverride


def collect_notices(draft: Draft) -> None:
    draft.notices = (*_stages(draft), *_data(draft), *_layouts(draft))


def _stages(draft: Draft) -> Iterator[Notice]:
    spec = draft.spec
    alignment = [name for name in ("sft", "reward", "ppo") if getattr(spec.alignment, name) is not None]
    for name in alignment:
        yield Notice(
            key=f"alignment.{name}",
            message=f"`{name}` is checked, but its stage is not built yet: it is left out of the plan",
            blocks=False,
        )
    for index, evaluation in enumerate(spec.evaluation):
        key = f"evaluation[{index}]"
        if evaluation.kind == "needle":
            yield Notice(key=key, message="the needle test is not built yet: it is left out of the plan", blocks=False)
        if evaluation.every is not None:
            message = "evaluation during training is not built yet: it runs at the end of the phase"
            yield Notice(key=f"{key}.every", message=message, blocks=False)
        yield from _left_out(f"{key}.of", evaluation.of, alignment)
    if spec.export is not None:
        yield from _left_out("export.of", spec.export.of, alignment)


def _left_out(key: str, names: tuple[str, ...], alignment: list[str]) -> Iterator[Notice]:
    left = [f"`{name}`" for name in names if name in alignment]
    if left:
        yield Notice(key=key, message=f"{', '.join(left)} will follow with alignment itself", blocks=False)


def _data(draft: Draft) -> Iterator[Notice]:
    for name in sorted(set(draft.spec.data.sources) - set(draft.sources) - _aligned(draft)):
        message = "no stage reads this source: it is left out of the plan"
        yield Notice(key=f"data.sources.{name}", message=message, blocks=False)
    for name, source in draft.sources.items():
        key = f"data.sources.{name}"
        if source.kind not in ("text", "code"):
            message = f"pre-training reads text and code, not yet a source of kind `{source.kind}`"
            yield Notice(key=f"{key}.kind", message=message, blocks=True)
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


def _aligned(draft: Draft) -> set[str]:
    """The sources that alignment will read."""
    spec, alignment = draft.spec, draft.spec.alignment
    tables = [table for table in (alignment.sft, alignment.reward) if table is not None]
    names = {name for table in tables for name in table.data}
    mixtures = []
    if alignment.sft is not None and alignment.sft.long_data is not None:
        mixtures.append(alignment.sft.long_data.mixture)
    if alignment.ppo is not None:
        names.add(alignment.ppo.queries)
        if alignment.ppo.pretrain is not None:
            mixtures.append(alignment.ppo.pretrain.mixture)
    return (names | {source for mixture in mixtures for source in draft.mixtures[mixture]}) & set(spec.data.sources)


def _layouts(draft: Draft) -> Iterator[Notice]:
    for index, layout in enumerate(draft.layouts):
        own = draft.spec.phases[index].topology
        for key, message in _not_built(layout):
            yield Notice(key=_key(index, own, key), message=message, blocks=True)


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
        "spec.alignment",
        "spec.data",
        "spec.evaluation",
        "spec.export",
        "spec.phases",
        "spec.tokenizer",
        "mixtures",
        "sources",
        "layouts",
    ),
    gives=("notices",),
)
