"""spec -> plan: the tuple of passes, in order, and the driver that holds each one to what it declares."""

from dataclasses import dataclass
from pathlib import Path

from trainwright.compiler.draft import SECTIONS, Check, Draft, Pass
from trainwright.compiler.emit import build_plan
from trainwright.compiler.passes.check_alignment import CHECK_ALIGNMENT
from trainwright.compiler.passes.check_alignment_layouts import CHECK_ALIGNMENT_LAYOUTS
from trainwright.compiler.passes.check_batches import CHECK_BATCHES
from trainwright.compiler.passes.check_budget import CHECK_BUDGET
from trainwright.compiler.passes.check_checkpoints import CHECK_CHECKPOINTS
from trainwright.compiler.passes.check_hardware import CHECK_HARDWARE
from trainwright.compiler.passes.check_kernels import CHECK_KERNELS
from trainwright.compiler.passes.check_layout_options import CHECK_LAYOUT_OPTIONS
from trainwright.compiler.passes.check_layouts import CHECK_LAYOUTS
from trainwright.compiler.passes.check_memory import CHECK_MEMORY
from trainwright.compiler.passes.check_mixture_names import CHECK_MIXTURE_NAMES
from trainwright.compiler.passes.check_mixtures import CHECK_MIXTURES
from trainwright.compiler.passes.check_model import CHECK_MODEL
from trainwright.compiler.passes.check_names import CHECK_NAMES
from trainwright.compiler.passes.check_options import CHECK_OPTIONS
from trainwright.compiler.passes.check_passes import CHECK_PASSES
from trainwright.compiler.passes.check_phases import CHECK_PHASES
from trainwright.compiler.passes.check_references import CHECK_REFERENCES
from trainwright.compiler.passes.check_search import CHECK_SEARCH
from trainwright.compiler.passes.check_sources import CHECK_SOURCES
from trainwright.compiler.passes.check_tokenizer import CHECK_TOKENIZER
from trainwright.compiler.passes.check_world import CHECK_WORLD
from trainwright.compiler.passes.collect_assumptions import COLLECT_ASSUMPTIONS
from trainwright.compiler.passes.collect_notices import COLLECT_NOTICES
from trainwright.compiler.passes.digest_sources import DIGEST_SOURCES
from trainwright.compiler.passes.estimate_alignment import ESTIMATE_ALIGNMENT
from trainwright.compiler.passes.estimate_memory import ESTIMATE_MEMORY
from trainwright.compiler.passes.estimate_passes import ESTIMATE_PASSES
from trainwright.compiler.passes.estimate_time import ESTIMATE_TIME
from trainwright.compiler.passes.fingerprint_stages import FINGERPRINT_STAGES
from trainwright.compiler.passes.flatten_mixtures import FLATTEN_MIXTURES
from trainwright.compiler.passes.lower_alignment import LOWER_ALIGNMENT
from trainwright.compiler.passes.lower_to_stages import LOWER_TO_STAGES
from trainwright.compiler.passes.merge_topologies import MERGE_TOPOLOGIES
from trainwright.compiler.passes.name_kernels import NAME_KERNELS
from trainwright.compiler.passes.place_stages import PLACE_STAGES
from trainwright.compiler.passes.resolve_alignment import RESOLVE_ALIGNMENT
from trainwright.compiler.passes.resolve_data_axis import RESOLVE_DATA_AXIS
from trainwright.compiler.passes.resolve_hardware import RESOLVE_HARDWARE
from trainwright.compiler.passes.resolve_layouts import RESOLVE_LAYOUTS
from trainwright.compiler.passes.resolve_model import RESOLVE_MODEL
from trainwright.compiler.passes.resolve_phases import RESOLVE_PHASES
from trainwright.compiler.passes.search_layouts import SEARCH_LAYOUTS
from trainwright.compiler.passes.size_topologies import SIZE_TOPOLOGIES
from trainwright.compiler.search.ask import question_of
from trainwright.compiler.search.question import Question, Request
from trainwright.compiler.search.result import Search
from trainwright.spec.device import HardwareFile
from trainwright.spec.diagnostics import Diagnostic, has_errors, in_order
from trainwright.spec.load import Loaded
from trainwright.spec.plan import Plan

PASSES: tuple[Pass | Check, ...] = (
    CHECK_MODEL,
    RESOLVE_MODEL,
    CHECK_HARDWARE,
    RESOLVE_HARDWARE,
    CHECK_KERNELS,
    CHECK_NAMES,
    CHECK_REFERENCES,
    CHECK_OPTIONS,
    CHECK_TOKENIZER,
    CHECK_MIXTURES,
    CHECK_MIXTURE_NAMES,
    FLATTEN_MIXTURES,
    CHECK_PHASES,
    RESOLVE_PHASES,
    MERGE_TOPOLOGIES,
    SEARCH_LAYOUTS,
    CHECK_SEARCH,
    SIZE_TOPOLOGIES,
    CHECK_WORLD,
    RESOLVE_DATA_AXIS,
    CHECK_LAYOUTS,
    CHECK_LAYOUT_OPTIONS,
    CHECK_BATCHES,
    RESOLVE_LAYOUTS,
    CHECK_ALIGNMENT,
    RESOLVE_ALIGNMENT,
    CHECK_ALIGNMENT_LAYOUTS,
    CHECK_SOURCES,
    DIGEST_SOURCES,
    LOWER_ALIGNMENT,
    LOWER_TO_STAGES,
    PLACE_STAGES,
    NAME_KERNELS,
    FINGERPRINT_STAGES,
    ESTIMATE_ALIGNMENT,
    ESTIMATE_PASSES,
    CHECK_PASSES,
    ESTIMATE_MEMORY,
    CHECK_MEMORY,
    ESTIMATE_TIME,
    CHECK_BUDGET,
    CHECK_CHECKPOINTS,
    COLLECT_ASSUMPTIONS,
    COLLECT_NOTICES,
)


@dataclass(frozen=True)
class Compiled:
    """What came out: all mistakes, and the plan if none of them is an error."""

    plan: Plan | None
    diagnostics: list[Diagnostic]
    search: Search | None = None


def compile_spec(loaded: Loaded, *, plan_folder: Path | None = None, request: Request | None = None) -> Compiled:
    """The plan of a loaded spec, with every mistake found; paths in it are told from `plan_folder`.

    With a request, layouts are searched for even if the spec leaves none open.
    """
    if loaded.partial is None:
        return Compiled(None, loaded.diagnostics)
    draft = Draft(loaded.partial, loaded, plan_folder, request)
    diagnostics = in_order(loaded.diagnostics + run_passes(draft, PASSES), loaded.file)
    wrong = loaded.spec is None or has_errors(diagnostics)
    return Compiled(None if wrong else build_plan(draft), diagnostics, getattr(draft, "search", None))


def questions_of(loaded: Loaded, request: Request | None) -> tuple[dict[int, Question], HardwareFile] | None:
    """What each phase can ask of a search, and the device; None if mistakes are in the way."""
    if loaded.spec is None:
        return None
    draft = Draft(loaded.spec, loaded, None, request)
    if has_errors(run_passes(draft, PASSES[: PASSES.index(SEARCH_LAYOUTS)])):
        return None
    questions = {index: question_of(draft, index) for index in range(len(draft.open_topologies))}
    return questions, draft.hardware.figures


def run_passes(draft: Draft, passes: tuple[Pass | Check, ...]) -> list[Diagnostic]:
    """Runs each pass whose needs are met, and returns one report a mistake, in the order found.

    A need may be unmet only because of a mistake that was reported. Raises RuntimeError if a pass breaks its word.
    """
    known = set(vars(draft)) | (set(SECTIONS) - {f"spec.{name}" for name in draft.broken})
    found: list[Diagnostic] = []
    for step in passes:
        missing = set(step.needs) - known
        if not missing and isinstance(step, Pass):
            missing = set(step.also(draft)) - known
        if missing:
            if not draft.broken and not has_errors(found):
                raise RuntimeError(f"pass `{step.name}` needs {sorted(missing)}, which no pass before it gives")
            continue
        before = dict(vars(draft))
        if isinstance(step, Check):
            reported = list(step.run(draft))
            promised = set()
            if not has_errors(reported):
                known.add(step.holds)
            for diagnostic in reported:
                if not _told(diagnostic, found):
                    found.append(diagnostic)
        else:
            step.run(draft)
            promised = set(step.gives)
        _hold_to(step.name, promised, before, vars(draft))
        known |= promised
    return found


def _told(diagnostic: Diagnostic, found: list[Diagnostic]) -> bool:
    """True if the same mistake was reported before: one value of `[topology]` is wrong for each phase alike."""
    if diagnostic.span is None:
        return diagnostic in found
    return any(other.code == diagnostic.code and other.span == diagnostic.span for other in found)


def _hold_to(name: str, promised: set[str], before: dict[str, object], after: dict[str, object]) -> None:
    changed = {key for key in before if after.get(key) is not before[key]}
    given = set(after) - set(before)
    if changed or given != promised:
        raise RuntimeError(f"pass `{name}` gave {sorted(given)}, not {sorted(promised)}, and changed {sorted(changed)}")
