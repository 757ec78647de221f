"""The reference says what the code says."""

from __future__ import annotations

from docs.generate import FILE, render
from orchestration.settings import PROJECT_ROOT


def test_the_reference_is_up_to_date_and_of_no_machine() -> None:
    text = render()
    assert FILE.read_text(encoding="utf-8") == text, "make it anew: python -m docs.generate"
    assert str(PROJECT_ROOT) not in text
    assert render() == text


def test_everything_listed_says_what_it_is() -> None:
    rows = [line.split(" | ") for line in render().splitlines() if line.startswith("| ") and " --- " not in line]
    dumb = [row for row in rows if len(row) > 2 and not row[-1].strip(" |")]
    assert dumb == []
