"""The fenced blocks of the documentation, and what is to be done with each command in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from orchestration.settings import PROJECT_ROOT

PAGES = (PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md")))


class Block(NamedTuple):
    """A fenced block: `language` as the fence names it, `line` of the fence."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}:{self.language}"


class Treatment(StrEnum):
    """What the tests do with a command."""

    run = "run it in a project's folder with tables"
    idle = "run it there as well, where nothing is at work: its exit code says so"
    scratch = "run it on a home that may be lost"
    stack = "run it beside a running stack"
    topics = "run it beside a broker with results on its topics"
    options = "look up its options: other tests run it, at length"
    dry = "let make say what it would do: it takes long, or all of the machine"
    elsewhere = "it needs what is not here, or another test does the same"


RULES: tuple[tuple[str, Treatment, str], ...] = (
    (r"export PATH=.*", Treatment.run, ""),
    (r"tickhouse sql\b.*", Treatment.run, ""),
    (r"tickhouse (status|status --json)", Treatment.idle, ""),
    (r"tickhouse (doctor|down|skip moving)", Treatment.run, ""),
    (r"tickhouse status --watch", Treatment.elsewhere, "tests/integration/test_cli.py watches until Ctrl-C"),
    (r"tickhouse reset --yes", Treatment.scratch, ""),
    (r"tickhouse replay\b.*", Treatment.stack, ""),
    (r"tickhouse (up\b.*|rebuild moving)", Treatment.options, ""),
    (r"JAVA=.*|.* org\.apache\.kafka\.tools\.consumer\.ConsoleConsumer .*", Treatment.topics, ""),
    (r"make\b.*", Treatment.dry, ""),
    (r"tar -czf .*", Treatment.run, ""),
    (r"cp \.env\.example \.env", Treatment.run, ""),
    (r"\.venv/bin/python examples/.*", Treatment.run, ""),
    (r"\.venv/bin/python -m tests\.reference\.compare --help", Treatment.run, ""),
    (r"\.venv/bin/python -m docs\.generate", Treatment.elsewhere, "tests/docs/test_reference.py compares its output"),
    (r"git pull", Treatment.elsewhere, "there is nowhere to pull from"),
    (r"docker compose .*", Treatment.elsewhere, "needs a container engine; tests/unit/test_compose.py reads the file"),
)
"""The first rule whose pattern is the whole command decides. The last member: why it is not run."""


def blocks() -> list[Block]:
    """All blocks of all pages."""
    return [block for page in PAGES for block in blocks_of(page)]


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of one page. Raises ValueError for a fence without a language or without an end."""
    language, begin, lines = "", 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.fullmatch(r"\s*```(.*)", line)
        if fence is None:
            lines.append(line)
        elif begin and not fence[1]:
            yield Block(page, begin, language, "\n".join(lines))
            begin = 0
        elif begin or not fence[1]:
            raise ValueError(f"{page.name}:{number}: a block begins without a language or within another")
        else:
            language, begin, lines = fence[1], number, []
    if begin:
        raise ValueError(f"{page.name}:{begin}: the block has no end")


def commands(block: Block) -> list[str]:
    """The commands of a shell block, without comments."""
    joined = block.text.replace("\\\n", " ")
    stripped = (re.sub(r"(^|\s+)#\s.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line]


def treatment(command: str) -> Treatment:
    """What is to be done with a command. Raises LookupError when no rule knows it."""
    for pattern, what, _ in RULES:
        if re.fullmatch(pattern, command):
            return what
    raise LookupError(f"no rule in {__name__} says how to test this: {command}")


def stack_commands() -> list[str]:
    """The documented commands that need a running stack."""
    shell = (command for block in blocks() if block.language == "sh" for command in commands(block))
    return [command for command in shell if treatment(command) is Treatment.stack]


def spoken_commands() -> list[tuple[str, list[str]]]:
    """Commands in running text, with the page: `tickhouse …` and `make …` between backticks."""
    found = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for spoken in re.findall(r"`((?:tickhouse|make) [^`]+)`", text):
            # A placeholder or an ellipsis is one word as well.
            found.append((page.name, shlex.split(spoken)))
    return found
