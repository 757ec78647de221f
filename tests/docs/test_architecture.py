"""The page on the architecture says what the code and its rules say."""

from __future__ import annotations

import re

from docs.layers import diagram
from orchestration.settings import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "architecture.md"


def test_the_diagram_is_that_of_the_rules() -> None:
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert drawn == diagram(), "make it anew: python -m docs.layers"


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:tickhouse|producer|spark_jobs|orchestration)/[\w/.]+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 30
    assert [path for path in named if not (PROJECT_ROOT / path).exists()] == []
