"""Every value that nobody wrote, and where it comes from."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from trainwright.compiler.batching import MICRO_BATCH_TOKENS
from trainwright.compiler.chain import owner_of
from trainwright.compiler.draft import SECTIONS, Draft, Pass
from trainwright.compiler.search.paste import chosen_values
from trainwright.spec.alignment import Barrier, Dpo, Online, Ppo, Pretrain, Reward, Sft
from trainwright.spec.diagnostics import display
from trainwright.spec.plan import Assumption
from trainwright.spec.quantity import Table
from trainwright.spec.spec import Cluster, Data, Failures, Kernels, Model, Optimizer, Run, Storage, TrainTokenizer
from trainwright.spec.topology import Topology

OURS = "ours"
# Of these tables each default matters to the result or its cost; the rest is off unless somebody writes it.
_TABLES: tuple[tuple[tuple[str, ...], type[Table]], ...] = (
    (("run",), Run),
    (("model",), Model),
    (("tokenizer", "train"), TrainTokenizer),
    (("data",), Data),
    (("cluster",), Cluster),
    (("cluster", "failures"), Failures),
    (("cluster", "storage"), Storage),
    (("topology",), Topology),
    (("optimizer",), Optimizer),
    (("kernels",), Kernels),
    (("alignment", "sft"), Sft),
    (("alignment", "reward"), Reward),
    (("alignment", "reward", "barrier"), Barrier),
    (("alignment", "ppo"), Ppo),
    (("alignment", "ppo", "pretrain"), Pretrain),
    (("alignment", "ppo", "online"), Online),
    (("alignment", "dpo"), Dpo),
)
_COOL = "InternLM2 technical report, section 4.2"
# Where a default was published; all others are ours.
_PUBLISHED = {
    "optimizer.betas": "InternLM2 technical report, section 3.2.2",
    "optimizer.eps": "InternLM2 technical report, section 3.2.2",
    "optimizer.weight_decay": "InternLM2 technical report, section 3.2.2",
    "model.norm_eps": "InternLM2's released configurations",
    "model.init_std": "InternLM2's released configurations",
    "run.seed": "InternEvo's default",
    "cluster.failures.mean_time_between": "Llama 3 report, section 3.3.4: 419 failures of 16,384 GPUs in 54 days",
    "alignment.sft.epochs": "InternLM2 technical report, section 4.1",
    **{
        f"alignment.{key}": _COOL
        for key in (
            "reward.focal_gamma",
            "reward.barrier.bound",
            "reward.barrier.weight",
            "reward.sequence_length",
            "reward.weight_decay",
            "reward.epochs",
            "ppo.rounds",
            "ppo.iterations",
            "ppo.top_p",
            "ppo.kl",
            "ppo.gae_lambda",
            "ppo.normalise_advantages",
            "ppo.actor_learning_rate",
            "ppo.critic_learning_rate",
            "ppo.critic_warmup",
            "ppo.pretrain.weight",
            "ppo.pretrain.share",
            "ppo.online.fast_pairs",
        )
    },
    "alignment.reward.tokens_per_batch": f"{_COOL}; ours: that it is of all ranks together",
    "alignment.ppo.queries_per_iteration": f"{_COOL}: about 200,000 queries in about 400 iterations",
    "alignment.dpo.beta": "DPO (2305.18290), appendix B",
    "cluster.pue": "LLaMA report (2302.13971), section 6",
}


def collect_assumptions(draft: Draft) -> None:
    found: list[Assumption] = []
    for path, table in _TABLES:
        found += _defaults(draft, path, table)
    found += _derived(draft)
    draft.assumptions = tuple(found)


def _defaults(draft: Draft, path: tuple[str, ...], table: type[Table]) -> Iterator[Assumption]:
    value: Any = draft.spec
    for key in path:
        value = getattr(value, key) if value is not None else None
    if value is None:
        return
    hints = get_type_hints(table, include_extras=True)
    for field in msgspec.structs.fields(table):
        here = (*path, field.encode_name)
        default = getattr(value, field.name)
        if default is None or default == {} or isinstance(default, Table) or default == "auto":
            continue
        if draft.origins.at(here).kind == "default":
            why = _PUBLISHED.get(display(here)) or _why(hints[field.name]) or OURS
            yield Assumption(key=display(here), value=_shown(default), origin="default", why=why)


def _why(hint: Any) -> str | None:
    if get_origin(hint) is not Annotated:
        return None
    for meta in get_args(hint)[1:]:
        if isinstance(meta, msgspec.Meta) and meta.extra and "why" in meta.extra:
            return str(meta.extra["why"])
    return None


def _derived(draft: Draft) -> Iterator[Assumption]:
    """What the compiler chose or carried over, phase by phase."""
    phases = draft.spec.phases
    if draft.spec.model.kv_heads is None:
        yield Assumption(
            key="model.kv_heads", value=str(draft.model.kv_heads), origin="derived", why="as many as `heads`"
        )
    if draft.spec.model.head_size is None:
        yield Assumption(
            key="model.head_size", value=str(draft.model.head_size), origin="derived", why="`hidden_size` / `heads`"
        )
    for index, (phase, course) in enumerate(zip(phases, draft.courses, strict=True)):
        layout, topology = draft.layouts[index], draft.topologies[index]
        name = f"phases[{index}]"
        if phase.rope_base is None and owner_of(phases, index, "rope_base") is None:
            why = "the base RoPE was published with"
            yield Assumption(key=f"{name}.rope_base", value=f"{course.rope_base:,.0f}", origin="default", why=why)
        rate = phase.learning_rate
        if rate is not None and rate.final is None:
            why = "a tenth of the peak, as InternLM2"
            final = f"{course.learning_rate.final:g}"
            yield Assumption(key=f"{name}.learning_rate.final", value=final, origin="default", why=why)
        trained = course.steps * course.tokens_per_step
        if trained != phase.tokens:
            why = f"{course.steps:,} whole steps; {phase.tokens - trained:,} tokens do not fill another"
            yield Assumption(key=f"{name}.tokens", value=f"{trained:,}", origin="derived", why=why)
        yield from _searched(draft, index)
        if topology.data == "auto" and layout.world_size > 1:
            why = "what the other axes leave of the world"
            yield Assumption(key=f"{name}.topology.data", value=str(layout.data), origin="derived", why=why)
        if topology.micro_batch == "auto":
            why = (
                f"ours: the largest power of two that holds at most {MICRO_BATCH_TOKENS:,} tokens and divides the step"
            )
            micro_batch = str(layout.micro_batch)
            yield Assumption(key=f"{name}.topology.micro_batch", value=micro_batch, origin="derived", why=why)
        if topology.sequence_parallel == "auto" and layout.tensor > 1:
            why = "on with `tensor` above 1"
            yield Assumption(key=f"{name}.topology.sequence_parallel", value="true", origin="derived", why=why)


def _searched(draft: Draft, index: int) -> Iterator[Assumption]:
    """What the search chose for a phase."""
    if draft.search is None:
        return
    found, chosen = draft.search.phases.get(index), draft.search.choices.get(index)
    if found is None or chosen is None:
        return
    why = f"searched for: the fastest of {found.fit:,} layouts that fit"
    for key, value in chosen_values(chosen.candidate.layout, found.question.topology).items():
        yield Assumption(key=f"phases[{index}].topology.{key}", value=_shown(value), origin="search", why=why)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    return f"{value:,}" if isinstance(value, int) else str(value)


COLLECT_ASSUMPTIONS = Pass(
    collect_assumptions,
    needs=(*SECTIONS, "model", "courses", "search", "topologies", "layouts"),
    gives=("assumptions",),
)
