"""The report in a real browser: no error, and the reader's choice of theme."""

import pytest
from tests.browser import needs_chromium, open_page

from trainwright.runtime.report.write import write_report


@pytest.mark.slow
@needs_chromium
def test_the_report_opens_without_an_error_in_the_theme_asked_for(aligned_run) -> None:
    dom = open_page(write_report(aligned_run.folder), "--dump-dom", fragment="#theme=dark")
    assert '<html lang="en" data-theme="dark">' in dom
    assert 'data-theme="dark">theme: dark</button>' in dom
