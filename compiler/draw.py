"""The stage graph as text, Graphviz dot, Mermaid or JSON."""

import json
from typing import Literal

from trainwright.compiler.figures import rounded
from trainwright.compiler.graph import StageGraph
from trainwright.spec.plan import (
    AnyStage,
    ConversationsStage,
    DpoStage,
    EvaluateStage,
    ExportStage,
    IngestStage,
    OnlineStage,
    PhaseStage,
    Plan,
    PpoStage,
    RewardStage,
    SftStage,
    TokenizerStage,
    TokenizeStage,
)

Format = Literal["text", "dot", "mermaid", "json"]


def draw(plan: Plan, form: Format) -> str:
    """The plan's stages and what each of them needs, without a newline at the end."""
    graph = StageGraph(plan.stages)
    return {"text": _text, "dot": _dot, "mermaid": _mermaid, "json": _json}[form](graph)


def describe(stage: AnyStage) -> str:
    """What the stage does, in a few words."""
    match stage:
        case IngestStage():
            return f"{_several(len(stage.sources), 'source')}, {100 * stage.held_out:.3g} % held out"
        case TokenizerStage():
            how = f"from {stage.path}" if stage.path else f"{stage.algorithm} trained on the mixture"
            return f"{stage.vocab_size:,} pieces, {how}"
        case TokenizeStage():
            return f"{_several(len(stage.sources), 'source')} to token ids"
        case PhaseStage():
            return f"{rounded(stage.tokens)} tokens, {stage.steps:,} steps, sequences of {stage.sequence_length:,}"
        case ConversationsStage():
            return f"{_several(len(stage.sources), 'source')} to conversations"
        case SftStage():
            return f"{_several(stage.epochs, 'epoch')}, sequences of {stage.sequence_length:,}"
        case RewardStage():
            return f"{_several(stage.epochs, 'epoch')}, {_several(len(stage.conditions), 'condition')}"
        case PpoStage():
            return f"{stage.steps:,} iterations of {stage.sequences_per_step:,} answers"
        case OnlineStage():
            return f"up to {stage.fast_pairs + stage.slow_pairs:,} candidates for labels"
        case DpoStage():
            return f"{_several(stage.epochs, 'epoch')}, beta {stage.beta:g}"
        case EvaluateStage():
            kinds = (("perplexity", stage.perplexity), ("samples", stage.samples))
            return ", ".join(name for name, wanted in kinds if wanted is not None)
        case ExportStage():
            return ", ".join(stage.formats)


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("s" if count != 1 else "")


def _text(graph: StageGraph) -> str:
    width = max(len(stage.name) for stage in graph)
    lines = []
    direct: dict[str, list[str]] = {}
    for need, name in graph.direct_edges():
        direct.setdefault(name, []).append(need)
    for stage in graph:
        needs = f"  <- {', '.join(direct[stage.name])}" if stage.name in direct else ""
        lines.append(f"{stage.name:<{width}}  {describe(stage)}{needs}")
    return "\n".join(lines)


def _dot(graph: StageGraph) -> str:
    lines = ["digraph stages {", "  rankdir=LR;", '  node [shape=box, fontname="sans-serif"];']
    lines += [f'  "{stage.name}" [label="{stage.name}\\n{_quoted(describe(stage))}"];' for stage in graph]
    lines += [f'  "{need}" -> "{name}";' for need, name in graph.direct_edges()]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _mermaid(graph: StageGraph) -> str:
    number = {stage.name: f"s{index}" for index, stage in enumerate(graph)}
    lines = ["flowchart LR"]
    lines += [
        f'  {number[stage.name]}["{stage.name}<br/>{describe(stage).replace(chr(34), "#quot;")}"]' for stage in graph
    ]
    lines += [f"  {number[need]} --> {number[name]}" for need, name in graph.direct_edges()]
    return "\n".join(lines)


def _json(graph: StageGraph) -> str:
    nodes = [
        {
            "name": stage.name,
            "kind": stage.__struct_config__.tag,
            "needs": list(stage.needs),
            "fingerprint": stage.fingerprint,
            "does": describe(stage),
        }
        for stage in graph
    ]
    return json.dumps({"stages": nodes}, indent=2, ensure_ascii=False)
