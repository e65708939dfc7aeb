"""Every diagnostic there is: its code, its name, how bad it is and what it is about. `pages/CODE.md` explains it.

TW1xx: the spec as it is written. TW2xx: what the compiler finds between its values. TW3xx: the cluster.
"""

from dataclasses import dataclass
from pathlib import Path

from trainwright.spec.diagnostics import Severity


@dataclass(frozen=True)
class Code:
    """A row of the table."""

    code: str
    name: str
    severity: Severity
    title: str
    infeasible: bool = False  # the spec is valid, but not on this cluster or within this budget: exit code 3


SYNTAX = "TW101"
DUPLICATE_KEY = "TW102"
NOT_UTF8 = "TW103"
UNREADABLE_FILE = "TW104"
EXTENDS_CYCLE = "TW105"
UNKNOWN_PRESET = "TW106"
BAD_OVERRIDE = "TW107"
UNKNOWN_KEY = "TW110"
MISSING_KEY = "TW111"
WRONG_TYPE = "TW112"
WRONG_UNIT = "TW113"
NOT_WHOLE = "TW114"
OUT_OF_RANGE = "TW115"
UNKNOWN_CHOICE = "TW116"
BAD_NAME = "TW117"
WRONG_LENGTH = "TW118"
NO_MEMBER_CHOSEN = "TW120"
CANNOT_VARY = "TW121"
NEVER_TRUE = "TW122"
SWEEP_TOO_LARGE = "TW123"

_SPEC = (
    Code(SYNTAX, "syntax", "error", "the text is not TOML"),
    Code(DUPLICATE_KEY, "duplicate-key", "error", "a key or table is defined twice"),
    Code(NOT_UTF8, "not-utf-8", "error", "the file is not UTF-8 text"),
    Code(UNREADABLE_FILE, "unreadable-file", "error", "a spec file cannot be read"),
    Code(EXTENDS_CYCLE, "extends-cycle", "error", "a spec extends itself"),
    Code(UNKNOWN_PRESET, "unknown-preset", "error", "there is no preset of that name"),
    Code(BAD_OVERRIDE, "bad-override", "error", "an override does not name a value of the spec"),
    Code(UNKNOWN_KEY, "unknown-key", "error", "a key that means nothing here"),
    Code(MISSING_KEY, "missing-key", "error", "a key that must be given is absent"),
    Code(WRONG_TYPE, "wrong-type", "error", "a value of the wrong type"),
    Code(WRONG_UNIT, "wrong-unit", "error", "a quantity whose unit does not fit"),
    Code(NOT_WHOLE, "not-whole", "error", "a count that is not a whole number"),
    Code(OUT_OF_RANGE, "out-of-range", "error", "a number outside of what is possible"),
    Code(UNKNOWN_CHOICE, "unknown-choice", "error", "a value that is not among the choices"),
    Code(BAD_NAME, "bad-name", "error", "a name with characters that names cannot have"),
    Code(WRONG_LENGTH, "wrong-length", "error", "an array or string that is too short or too long"),
    Code(NO_MEMBER_CHOSEN, "no-member-chosen", "error", "a sweep where one of its members is needed"),
    Code(CANNOT_VARY, "cannot-vary", "error", "a sweep or a conditional changes what it cannot"),
    Code(NEVER_TRUE, "never-true", "error", "a condition that no cluster can meet"),
    Code(SWEEP_TOO_LARGE, "sweep-too-large", "error", "a sweep of more members than anybody reads"),
)

_COMPILER = (
    Code("TW201", "hidden-size-not-divisible", "error", "the hidden size is not divisible by the heads"),
    Code("TW202", "kv-heads-not-divisible", "error", "the query heads are not divisible by the key and value heads"),
    Code("TW203", "head-size-odd", "error", "a head's size is odd"),
    Code("TW210", "tokenizer-missing", "error", "there is no tokenizer"),
    Code("TW211", "tokenizer-given-twice", "error", "the tokenizer is both trained and taken from a file"),
    Code("TW212", "vocabulary-mismatch", "error", "the tokenizer's vocabulary is not the model's"),
    Code("TW213", "vocabulary-too-small", "error", "fixed and spare pieces leave no room in the vocabulary"),
    Code("TW214", "tokenizer-not-found", "error", "the tokenizer's file does not exist"),
    Code("TW220", "unknown-source", "error", "a source that does not exist is named"),
    Code("TW221", "mixture-cycle", "error", "a mixture contains itself"),
    Code("TW222", "mixture-empty", "error", "a mixture weighs nothing"),
    Code("TW223", "unknown-mixture", "error", "a mixture that does not exist is named"),
    Code("TW224", "source-not-found", "error", "a local source has no file"),
    Code("TW225", "name-of-two-things", "error", "a source and a mixture have the same name"),
    Code("TW226", "join-without-repositories", "error", "a source that is not code is to be joined by repository"),
    Code("TW227", "source-option-does-nothing", "error", "a key that does nothing for this kind of source"),
    Code("TW230", "no-phases", "error", "there is no phase to train"),
    Code("TW231", "duplicate-phase", "error", "two phases have the same name"),
    Code("TW232", "reserved-name", "error", "a phase has the name of another kind of stage"),
    Code("TW233", "unknown-stage", "error", "a stage that does not exist is named"),
    Code("TW234", "start-not-earlier", "error", "a phase starts from itself or a later one"),
    Code("TW240", "tokens-per-step-missing", "error", "nothing says how many tokens a step has"),
    Code("TW241", "step-not-whole-sequences", "error", "a step is not a whole number of sequences"),
    Code("TW242", "tokens-fill-no-step", "error", "a phase's tokens do not fill one step"),
    Code("TW243", "learning-rate-missing", "error", "nothing says the learning rate"),
    Code("TW244", "warmup-too-long", "error", "the warm-up leaves nothing of the learning-rate curve"),
    Code("TW245", "learning-rate-rises", "error", "the final learning rate is above the peak"),
    Code("TW246", "interval-does-not-fit", "error", "an interval of the wrong kind, or of nothing"),
    Code("TW247", "curve-branches", "error", "two phases carry on the same learning-rate curve"),
    Code("TW250", "option-does-nothing", "error", "a key that does nothing for this kind of evaluation"),
    Code("TW251", "option-missing", "error", "an evaluation lacks what its kind needs"),
    Code("TW252", "evaluated-twice", "error", "a stage is evaluated twice in the same way"),
    Code("TW253", "nothing-held-out", "error", "something is measured on what is held out, and nothing is"),
    Code("TW254", "scores-not-text", "error", "a reward model is evaluated as if it wrote text"),
    Code("TW260", "wrong-kind-of-source", "error", "a stage is given a source of a kind that it cannot read"),
    Code("TW261", "no-reward-model", "error", "PPO without a reward model"),
    Code("TW262", "condition-not-found", "error", "a domain's system prompt does not exist"),
    Code("TW263", "no-room-for-queries", "error", "answers are as long as query and answer together may be"),
    Code("TW264", "labeller-unclear", "error", "a labeller is not one thing"),
    Code("TW265", "no-reward-token", "error", "a reward model without a spare piece in the vocabulary"),
    Code("TW266", "alignment-not-searched", "error", "a layout of alignment is left to the search"),
    Code("TW267", "rounds-without-labels", "warning", "later rounds of online RLHF will learn of no labels"),
)

_CLUSTER = (
    Code(
        "TW301",
        "world-does-not-factor",
        "error",
        "the axes do not multiply to the ranks of the cluster",
        infeasible=True,
    ),
    Code(
        "TW302",
        "heads-not-divisible-by-tensor",
        "error",
        "the heads are not divisible by the tensor axis",
        infeasible=True,
    ),
    Code(
        "TW303",
        "ffn-not-divisible-by-tensor",
        "error",
        "the MLP's width is not divisible by the tensor axis",
        infeasible=True,
    ),
    Code(
        "TW304",
        "vocabulary-not-divisible-by-tensor",
        "error",
        "the vocabulary is not divisible by the tensor axis",
        infeasible=True,
    ),
    Code(
        "TW305",
        "layers-not-divisible-by-pipeline",
        "error",
        "the layers are not divisible by the pipeline",
        infeasible=True,
    ),
    Code(
        "TW306",
        "sequence-not-divisible-by-context",
        "error",
        "the sequence is not divisible by the context axis",
        infeasible=True,
    ),
    Code(
        "TW307",
        "sequence-not-divisible-by-tensor",
        "error",
        "the sequence is not divisible as sequence parallelism needs",
        infeasible=True,
    ),
    Code(
        "TW308",
        "batch-not-divisible",
        "error",
        "a step's sequences do not go evenly to ranks and micro-batches",
        infeasible=True,
    ),
    Code("TW309", "virtual-pipeline-alone", "error", "several model chunks a rank without a pipeline"),
    Code(
        "TW310",
        "micro-batches-not-divisible",
        "error",
        "the interleaved schedule needs another number of micro-batches",
        infeasible=True,
    ),
    Code("TW311", "zero-group-not-divisible", "error", "the ZeRO group does not divide the data axis", infeasible=True),
    Code("TW312", "schedule-contradicts", "error", "the schedule and the number of model chunks contradict each other"),
    Code("TW313", "sequence-parallel-alone", "error", "sequence parallelism without a tensor axis"),
    Code("TW314", "zero-group-alone", "error", "a ZeRO group without ZeRO"),
    Code("TW315", "recompute-option-alone", "error", "a key of recomputation that does nothing in its mode"),
    Code("TW316", "tensor-mode-contradicts", "error", "InternEvo's tensor mode and another key contradict each other"),
    Code("TW317", "weight-parallel-alone", "error", "weight parallelism where weights are not cut that way"),
    Code("TW318", "weight-not-divisible", "error", "weight parallelism does not divide its ranks", infeasible=True),
    Code("TW319", "recompute-layers-too-many", "error", "more recomputed layers than a model chunk has"),
    Code("TW320", "unknown-gpu", "error", "nothing is known of this gpu"),
    Code("TW321", "bad-hardware-file", "error", "a hardware file cannot be used"),
    Code("TW322", "context-exchange-alone", "error", "a context exchange without a context axis"),
    Code("TW323", "heads-not-shared", "error", "context ranks cannot share the heads they exchange", infeasible=True),
    Code(
        "TW324",
        "context-heads-not-divisible",
        "error",
        "groups that exchange heads do not divide the context ranks",
        infeasible=True,
    ),
    Code("TW325", "context-heads-contradict", "error", "a group that exchanges heads where all context ranks do"),
    Code("TW330", "out-of-memory", "error", "a rank needs more memory than its card has", infeasible=True),
    Code("TW331", "memory-tight", "warning", "a rank needs nearly all of its card's memory"),
    Code("TW332", "over-budget", "error", "training costs more than the budget", infeasible=True),
    Code("TW333", "past-deadline", "error", "training takes longer than the deadline", infeasible=True),
    Code("TW334", "budget-not-checked", "warning", "the budget cannot be held against an unknown figure"),
    Code("TW335", "checkpoints-cost", "warning", "another interval of checkpoints would keep much more of the time"),
    Code("TW336", "source-read-often", "warning", "a source is read again and again"),
    Code("TW340", "no-layout", "error", "a phase whose layout is left open has none that works", infeasible=True),
    Code("TW341", "speed-unknown", "error", "layouts cannot be compared on a gpu of unknown speed"),
)

_KERNELS = (
    Code("TW501", "portable-on-cpu", "warning", "a CPU interprets our own kernels: for checking, not for speed"),
    Code("TW502", "attention-cannot-run", "error", "the attention asked for does not know this device or precision"),
)

CODES: dict[str, Code] = {row.code: row for row in (*_SPEC, *_COMPILER, *_CLUSTER, *_KERNELS)}


def page(code: str) -> str | None:
    """The Markdown page that `explain` prints; None if there is no such code."""
    row = CODES.get(code.upper())
    if row is None:
        return None
    return (Path(__file__).parent / "pages" / f"{row.code}.md").read_text(encoding="utf-8")
