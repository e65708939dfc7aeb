"""Draft -> Plan -> the bytes of `plan.json`, checked against the published schema."""

import json
import os
from pathlib import Path
from typing import Any

from trainwright.compiler.cost.flops import FLOPS_CONVENTION
from trainwright.compiler.draft import Draft
from trainwright.compiler.stale import COMPILER, digest_specs
from trainwright.spec.plan import PLAN_VERSION, Plan, encode

SCHEMA = Path(__file__).parent.parent / "schemas" / "plan.schema.json"


def build_plan(draft: Draft) -> Plan:
    """The plan of a draft through which all passes went."""
    folder = draft.plan_folder if draft.plan_folder is not None else draft.root
    return Plan(
        version=PLAN_VERSION,
        compiler=COMPILER,
        name=draft.spec.run.name,
        spec_files=digest_specs(draft.files, draft.root),
        root=Path(os.path.relpath(draft.root.resolve(), folder.resolve())).as_posix(),
        flops_convention=FLOPS_CONVENTION,
        hardware=draft.hardware,
        stages=draft.graph.stages,
        estimates=draft.estimates,
        assumptions=draft.assumptions,
        notices=tuple(dict.fromkeys(draft.notices)),
    )


def emit(plan: Plan) -> bytes:
    """The plan's bytes. Raises ValueError if they are not what the schema promises: a mistake of ours, not a user's."""
    data = encode(plan)
    problem = _first_problem(json.loads(data))
    if problem is not None:
        raise ValueError(f"the plan does not follow {SCHEMA.name}: {problem}")
    return data


def _first_problem(document: Any) -> str | None:
    from jsonschema import Draft202012Validator  # 60 ms that `check` need not spend

    validator = Draft202012Validator(json.loads(SCHEMA.read_bytes()))
    error = next(validator.iter_errors(document), None)
    return f"{error.json_path}: {error.message}" if error else None
