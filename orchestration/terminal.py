"""Standard input, output and error as a command finds them: closed, full, narrow, or not UTF-8."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

T = TypeVar("T")

ENDLESS = 100_000
_LEAST = {"COLUMNS": 20, "LINES": 1, "TERMINAL_WIDTH": 20}
_PLAIN = {"✓": "+", "✗": "x", "•": "*", "…": "...", "–": "-"}


def clean_sizes() -> None:
    """Forget a size of the terminal that cannot be one: Rich writes nothing into 0 columns, Typer fails on a word."""
    for name, least in _LEAST.items():
        value = os.environ.get(name, "")
        if not (value.isascii() and value.isdigit() and least <= int(value) <= ENDLESS):
            os.environ.pop(name, None)


def width(stream: TextIO | None) -> int | None:
    """How wide to write to a stream; None for as wide as the terminal is, or as COLUMNS says.

    Into a file or a pipe nothing is cut off, however long.
    """
    return None if stream is None or stream.isatty() or "COLUMNS" in os.environ else ENDLESS


def guard(command: Callable[[], T], complain: Callable[[str], object]) -> T:
    """Run a command, whatever is wrong with what it writes to, or with the current folder.

    What keeps it from working is complained of in a sentence, and ends the process with 1.
    """
    wrong = _repair() or _current_folder()
    if wrong is not None:
        _end(wrong, complain)
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except BrokenPipeError:
        _end(None, complain)  # who has stopped reading need not be told
    except OSError as error:
        what = "The output cannot be written" if error.filename is None else str(error.filename)
        _end(f"{what}: {error.strerror or error}", complain)


def _current_folder() -> str | None:
    try:
        Path.cwd()
    except FileNotFoundError:
        return "The current folder has been deleted: change to one that exists, and run the same again"
    return None


def _end(sentence: str | None, complain: Callable[[str], object]) -> NoReturn:
    _give_up()
    if sentence is not None:
        with suppress(OSError):  # if nobody can be told, the exit code says it
            complain(sentence)
        _give_up()
    raise SystemExit(1)


def _repair() -> str | None:
    """Make the standard streams usable; returns what is wrong with standard output when it cannot be."""
    wrong = "standard output is closed: send it to /dev/null if it is not needed" if sys.stdout is None else None
    for number in (0, 1, 2):
        # Else the next file that is opened gets the number, and what a library writes to the stream goes into it.
        _occupy(number)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 (for as long as the process)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or sys.stdout
    codecs.register_error("tickhouse.plain", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tickhouse.plain")
    return wrong


def _occupy(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    """What to write for a character that an encoding lacks: one that looks like it, else its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if character in _PLAIN:
        return _PLAIN[character], error.start + 1
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    return codecs.backslashreplace_errors(one)


def _give_up() -> None:
    """Let what could not be written go nowhere: Python would try again, and complain, when the process ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
