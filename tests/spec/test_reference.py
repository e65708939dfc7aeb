"""The pages that are written from the types are those in `docs/`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainwright.spec.reference import diagnostics_page, spec_page


@pytest.mark.parametrize(("name", "page"), [("spec.md", spec_page), ("diagnostics.md", diagnostics_page)])
def test_page_is_not_stale(name: str, page: Callable[[], str]) -> None:
    written = (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")
    assert page() == written, "run `python -m trainwright.spec.reference`"
