"""The `tickhouse` command.

Imports that take long are inside the commands: help and mistakes should answer at once.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from orchestration import terminal
from orchestration.local.home_marker import NotOurs
from orchestration.local.processes import ProcessError
from orchestration.settings import OrchestrationSettings, SettingsError
from tickhouse.settings import path_argument

if TYPE_CHECKING:
    from orchestration.lakehouse.sql import Answer
    from orchestration.local.home import Contents
    from orchestration.monitoring.status import Status


class _Commands(typer.Typer):
    """All commands, whatever is wrong with what they are to write to, or with the current folder."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return terminal.guard(lambda: typer.Typer.__call__(self, *arguments, **keywords), _failure)


app = _Commands(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Live crypto prices, from exchange to serving store, exactly once, under Dagster.\n\n"
    "[bold]tickhouse up[/bold] runs everything on this machine; [bold]tickhouse status[/bold] shows how it is; "
    "[bold]tickhouse sql[/bold] asks the tables. Every option can also be set as TICKHOUSE_… in the environment.",
)
terminal.clean_sizes()
# Who wants tables narrow says so, as COLUMNS. Sentences are not broken even then: paths and commands in them are there
# to be found and copied.
_out = Console(width=terminal.width(sys.stdout))
_errors = Console(stderr=True, width=terminal.width(sys.stderr))
_NOT_AT_WORK = 3
"""What `systemctl status` says, too, of what does not run."""


def _path(text: str) -> Path:
    try:
        return path_argument(text)
    except ArgumentTypeError as error:
        raise typer.BadParameter(str(error)) from error


Home = Annotated[
    Path | None,
    typer.Option(
        parser=_path,
        metavar="PATH",
        help="Folder of all data. [dim]TICKHOUSE_HOME, else .tickhouse[/dim]",
        show_default=False,
    ),
]


class Format(StrEnum):
    """How `sql` writes rows."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def _format(name: str) -> Format:
    try:
        return Format(name)
    except ValueError:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(Format)}") from None


def _settings(**overrides: Any) -> OrchestrationSettings:
    try:
        return OrchestrationSettings.read(**overrides)
    except SettingsError as error:
        raise _failure(f"{error}") from error


def _failure(*sentences: str, code: int = 1) -> typer.Exit:
    for sentence in sentences:
        _errors.print(f"[bold red]✗[/bold red] {escape(sentence)}", soft_wrap=True)
    return typer.Exit(code)


def _confirm(question: str, otherwise: str) -> None:
    """Ask; whoever does not agree is told what has not happened. Raises Exit, with code 1."""
    try:
        agreed = typer.confirm(question)
    except typer.Abort:  # nobody is there to answer
        agreed = False
    if not agreed:
        if not sys.stdin.isatty():  # an answer that was typed has ended the line itself
            _out.print()
        _out.print(otherwise)
        raise typer.Exit(1)


@app.command()
def up(
    source: Annotated[
        str | None,
        typer.Option(
            help="Where prices come from: [bold]auto[/bold] (Binance if it answers, else the simulator), "
            "[bold]binance[/bold], [bold]simulator[/bold] or [bold]replay:FILE[/bold], a recording as for replay.",
            show_default="auto",
        ),
    ] = None,
    speed: Annotated[
        str | None, typer.Option(help="Of a replay: 1 as recorded, N times that, or max.", show_default="1")
    ] = None,
    sort: Annotated[bool | None, typer.Option("--sort/--no-sort", help="Of a replay: as for replay.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Of a replay: as for replay.")] = None,
    symbols: Annotated[
        str | None, typer.Option(help="Trading pairs, separated by commas.", show_default="BTCUSDT")
    ] = None,
    home: Home = None,
    port: Annotated[
        int | None,
        typer.Option(help="Of the Dagster UI; 0 gives every service any free port.", show_default="3000"),
    ] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Whether to run the Dagster UI and the board.")] = True,
) -> None:
    """Run the whole stack here until Ctrl-C: Kafka, MongoDB, Dagster, the producer and the four streams.

    The first start fetches what is missing. A later one goes on where the last one stopped.
    """
    settings = _settings(
        of_running_stack=False,
        source=source,
        speed=speed,
        replay_sort=sort,
        replay_symbol=symbol,
        symbols=symbols,
        home=home,
        port=port,
    )
    from orchestration.local.artifacts import FetchFailed
    from orchestration.local.home_lock import AlreadyRunning
    from orchestration.local.preflight import find_problems
    from orchestration.stack import lifecycle

    began = time.monotonic()

    def say(sentence: str) -> None:
        _out.print(f"[dim]{time.monotonic() - began:6.1f} s[/dim]  {escape(sentence)}", soft_wrap=True)

    with _out.status("Checking this machine") as spinner:
        problems = find_problems(settings, os.environ, ui=ui)
        if problems:
            raise _failure(*problems)

        told = ""

        def waiting(sentence: str) -> None:
            nonlocal told
            spinner.update(f"Waiting for {escape(sentence)}")
            if not _out.is_terminal and sentence != told:  # a log shows no spinner
                say(f"Waiting for {sentence}")
                told = sentence

        def ready(status: Status, sentence: str) -> None:
            spinner.stop()
            say(sentence)
            _tell_where_to_look(status, settings.home)

        def progress(bundle: str, arrived: int, total: int) -> None:
            spinner.update(f"Fetching {escape(bundle)}: {arrived} of {total} files")

        try:
            spinner.update("Starting")
            lifecycle.bring_up(settings, ui=ui, say=say, progress=progress, ready=ready, waiting=waiting)
        except (FetchFailed, AlreadyRunning, NotOurs, *lifecycle.STARTUP_FAILURES) as error:
            raise _failure(f"{error}") from error
        except OSError as error:
            raise _failure(f"the stack cannot go on: {error}") from error


def _tell_where_to_look(status: Status, home: Path) -> None:
    from orchestration.lakehouse.sql import EXAMPLES

    lines = []
    here = "" if home == Path(".tickhouse").absolute() else f" --home {shlex.quote(str(home))}"
    if status.dagster_url:
        lines.append(("Dagster", status.dagster_url))
    if status.board_url:
        lines.append(("Board", status.board_url))
    lines += [
        ("Prices", status.source_note or status.source or "-"),
        ("Kafka", status.kafka_bootstrap or "-"),
        ("MongoDB", status.mongo_uri or "-"),
        ("Delta tables", status.lakehouse),
        ("Logs", str(home / "logs")),
        ("How it is", f"tickhouse status --watch{here}"),
        ("Ask", f'tickhouse sql{here} "{next(iter(EXAMPLES.values()))}"'),
        ("Stop", f"Ctrl-C here, or tickhouse down{here}"),
    ]
    for name, value in lines:
        _out.print(f"  [bold]{name:<13}[/bold]{escape(value)}", soft_wrap=True)


@app.command()
def down(home: Home = None) -> None:
    """Stop the stack of a home, in order, leaving no process."""
    settings = _settings(home=home)
    from orchestration.local.home_lock import AlreadyRunning
    from orchestration.stack import lifecycle

    try:
        with _out.status("Stopping"):
            was_running = lifecycle.request_down(settings.home)
    except (lifecycle.StackError, AlreadyRunning, NotOurs, ProcessError) as error:
        raise _failure(f"{error}") from error
    nothing = f"Nothing runs with the home {escape(str(settings.home))}."
    _out.print("Everything is stopped." if was_running else nothing, soft_wrap=True)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Keep looking, once a second, until Ctrl-C; in a pipe with the time of each look."
        ),
    ] = False,
    home: Home = None,
) -> None:
    """Show what is at work, the source, the streams, their lag and counts, and how far MongoDB has got.

    The exit code is 0 when everything is at work that should be, 3 when something is not or nothing runs, as that of
    [bold]systemctl status[/bold], and 1 when it cannot be told. With --json it is the same, with --watch that of the
    last look. What was stopped by hand need not be at work; a recording may have ended, and a producer may wait for
    the exchange.
    """
    settings = _settings(home=home)
    from orchestration.cli.status_view import render
    from orchestration.monitoring.status import collect

    try:
        seen = collect(settings)
        if as_json:
            # In ASCII, as every encoding has it.
            sys.stdout.write(json.dumps(seen.model_dump(mode="json"), indent=2) + "\n")
        elif watch:
            seen = _watch(seen, lambda: collect(_settings(home=home)))
        else:
            _out.print(render(seen))
    except (SettingsError, ProcessError) as error:
        raise _failure(f"{error}") from error
    if seen.not_at_work:
        raise typer.Exit(_NOT_AT_WORK)


def _watch(seen: Status, look: Callable[[], Status]) -> Status:
    """Show what was seen and look again, once a second, until Ctrl-C; returns what was seen last."""
    from rich.live import Live

    from orchestration.cli.status_view import fitting, render

    try:
        if _out.is_terminal:
            with Live(fitting(seen, _out), console=_out, screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(1)
                    seen = look()
                    live.update(fitting(seen, _out), refresh=True)
        while True:
            _out.print(f"[bold]{time.strftime('%F %T%z')}[/bold]", render(seen, legend=False), "", sep="\n")
            time.sleep(1)
            seen = look()
    except KeyboardInterrupt:
        return seen


@app.command()
def doctor(
    home: Home = None,
    port: Annotated[int | None, typer.Option(help="As for up.", show_default="3000")] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="As for up.")] = True,
) -> None:
    """Look for whatever would keep the stack from starting here, and say what to do about it."""
    settings = _settings(of_running_stack=False, home=home, port=port)
    from orchestration.local.artifacts import missing
    from orchestration.local.home_lock import AlreadyRunning, holder
    from orchestration.local.java import find_java
    from orchestration.local.preflight import find_problems
    from tickhouse.environment import told

    try:
        pid = holder(settings.home)
    except AlreadyRunning as error:
        raise _failure(f"{error}") from error
    if pid is not None:
        running = f"The stack of {settings.home} is running (process {pid}): `tickhouse status` says how it is"
        _out.print(f"[green]✓[/green] {escape(running)}", soft_wrap=True)
        _tell_hazards(_settings(home=home))
        return
    problems = find_problems(settings, os.environ, ui=ui)
    if problems:
        raise _failure(*problems)
    java = find_java(os.environ)
    _out.print(f"[green]✓[/green] Java {java.version} at {escape(str(java.path))}", soft_wrap=True)
    if java.note:
        _out.print(f"[yellow]•[/yellow] {escape(java.note)}", soft_wrap=True)
    lacking = missing(settings.tools, os.environ)
    if lacking:
        _out.print(f"[yellow]•[/yellow] The first start will fetch {', '.join(lacking)}")
    for sentence in told(os.environ, settings.in_the_cloud):
        _out.print(f"[yellow]•[/yellow] {escape(sentence)}", soft_wrap=True)
    _out.print("[green]✓[/green] Nothing keeps the stack from starting here")
    if "kafka_bootstrap" in settings.model_fields_set:
        _tell_hazards(settings)


def _tell_hazards(settings: OrchestrationSettings) -> None:
    """Say which settings of the brokers endanger the results."""
    from tickhouse.kafka.access import librdkafka_security
    from tickhouse.kafka.broker_settings import hazards

    for sentence in hazards({"bootstrap.servers": settings.kafka_bootstrap, **librdkafka_security(settings)}):
        _out.print(f"[yellow]•[/yellow] {escape(sentence)}", soft_wrap=True)


@app.command()
def replay(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The recording; - for standard input.")],
    speed: Annotated[
        str | None, typer.Option(help="1 as recorded, N times that, or max.", show_default="max; 1 with --now")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Shift the timestamps so that the first tick is now.")] = False,
    sort: Annotated[
        bool | None,
        typer.Option(
            "--sort/--no-sort",
            help="Send the ticks in the order of their timestamps, or as they are.",
            show_default="as they are, after asking if many would be late",
        ),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="Of rows of Binance's archive, where the file's name does not tell it.")
    ] = None,
    home: Home = None,
) -> None:
    """Send a recording into the running stack, next to its own source, and return when all is delivered.

    A recording is a file with a tick such as this on each line:

    {"symbol":"BTCUSDT","price":99190.48,"timestamp":"2025-05-08T04:12:38Z"}

    Or it is a file of Binance's public archive as it is: trades, aggregated trades or candlesticks, each of which is a
    tick at its close time. Both may be plain or packed in gzip, bzip2, zstd or zip.

    Before anything is sent it is said how many ticks there are, which lines are no ticks, and how many ticks will be
    late and have no results. Every line is delivered; what is no tick goes into the table [bold]rejects[/bold] with the
    reason. A file without a tick among its first lines is refused.

    With its recorded timestamps it suits symbols that have no newer prices yet: ticks older than those of their own
    symbol already there are late. Sent again, also when it has grown, it goes on behind the last line that is there.
    """
    from producer.recordings.errors import RecordingError
    from producer.recordings.location import path_of

    settings = _settings(
        home=home, speed=speed or ("1" if now else "max"), replay_sort=bool(sort), replay_symbol=symbol or ""
    )
    from orchestration.local.home_lock import holder
    from orchestration.supervision.replay import NotSent, ReplayFailed, send
    from producer.recordings.question import Answer, Found

    if holder(settings.home) is None:
        raise _failure(f"nothing runs with the home {settings.home}: start it with `tickhouse up`")
    # However it is asked to stop, the producer behind it is stopped cleanly.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _out.status("Reading the recording") as spinner:

            def progress(sent: int, acknowledged: int, last_timestamp: str | None) -> None:
                if sent:
                    spinner.update(f"{sent:,} sent, {acknowledged:,} acknowledged, up to {last_timestamp or '…'}")

            def decide(found: Found) -> Answer:
                spinner.stop()
                _say_all(found.sentences)
                answer = Answer.send
                if found.late and sort is None and sys.stdin.isatty():
                    if found.late_unsorted and typer.confirm("Send it sorted?", default=True):
                        answer = Answer.sort
                    elif not typer.confirm("Send it as it is?"):
                        answer = Answer.stop
                spinner.start()
                return answer

            told = send(settings, path_of(file), shift_to_now=now, progress=progress, decide=decide)
    except NotSent:
        raise _failure("nothing is sent") from None
    except (ReplayFailed, RecordingError) as error:
        raise _failure(f"{error}") from error
    except KeyboardInterrupt:
        raise _failure("stopped; send it again to go on where it was") from None
    _say_all(told)


def _say_all(sentences: list[str]) -> None:
    for sentence in sentences:
        _out.print(f"{sentence}.", soft_wrap=True, markup=False, highlight=False)


@app.command()
def sql(
    statement: Annotated[
        str | None, typer.Argument(metavar="[QUERY]", help="A SELECT over the tables; left out, what there is to ask.")
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            parser=_format,
            metavar="|".join(Format),
            help="How to write the rows.",
            show_default="by the file's ending, else table",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            parser=_path, metavar="FILE", help="A file for the rows: .csv, .parquet, or .json or .jsonl (JSON lines)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")] = False,
    limit: Annotated[
        int,
        typer.Option(min=0, help="At most so many rows in a table; 0 for all. Every other format has all rows."),
    ] = 100,
    home: Home = None,
) -> None:
    """Ask the Delta tables: prices, rejects, moving_stats, zscores, higher, lower, gaps, backfills.

    For example: tickhouse sql "SELECT symbol, count(*) FROM prices GROUP BY symbol"

    Without a query: which tables and columns there are, and queries to begin with. The dialect is DataFusion's
    (https://datafusion.apache.org/user-guide/sql/): lists begin at 1, and their parts are named in brackets, as in
    z_scores[1]['zscore_price'].
    """
    settings = _settings(home=home)
    from orchestration.cli.sql_output import OutputExists, write_csv, write_file, write_json
    from orchestration.lakehouse.sql import QueryFailed, query

    form = form or _form_of(output)
    if form is (Format.parquet if output is None else Format.table):
        raise _failure(
            "a file is csv, json or parquet, by its ending (.csv, .json, .jsonl or .parquet) or by --format; "
            "parquet needs --output FILE",
            code=2,
        )
    try:
        if statement is None:
            _tell_what_to_ask(settings.lakehouse, home)
            return
        answer = query(settings.lakehouse, statement)
        if output is not None:
            try:
                with _errors.status(f"Writing {escape(str(output))}"):
                    count = write_file(answer, output, form, overwrite=overwrite)
            except OSError as error:
                raise _failure(f"{output} cannot be written: {error.strerror or error}") from error
            _out.print(f"{count:,} rows are in {escape(str(output))}.", soft_wrap=True)
        elif form is Format.json:
            write_json(answer, sys.stdout)
        elif form is Format.csv:
            write_csv(answer, sys.stdout)
        else:
            _show(answer, limit)
    except (QueryFailed, OutputExists) as error:
        raise _failure(f"{error}") from error


def _form_of(file: Path | None) -> Format:
    """The format that the ending of a file's name means."""
    if file is None:
        return Format.table
    ending = file.suffix.lower().removeprefix(".")
    return {"csv": Format.csv, "parquet": Format.parquet, "json": Format.json, "jsonl": Format.json}.get(
        ending, Format.table
    )


def _show(answer: Answer, limit: int) -> None:
    from orchestration.cli.sql_view import rows_for_people

    shown = rows_for_people(answer, limit, _out.width)
    for part in shown.parts:
        _out.print(part)
    if not shown.rows:
        _errors.print("[dim]There are no such rows.[/dim]")
    if shown.more:
        _errors.print(f"[dim]These are the first {limit:,} rows: --limit 0 shows all, --output FILE keeps all.[/dim]")


def _tell_what_to_ask(lakehouse: str, home: Path | None) -> None:
    from orchestration.cli.sql_view import what_to_ask
    from orchestration.lakehouse.sql import EXAMPLES, tables

    for part in what_to_ask(tables(lakehouse)):
        _out.print(part)
    _out.print("[dim]The dialect is DataFusion's: https://datafusion.apache.org/user-guide/sql/[/dim]", soft_wrap=True)
    there = "" if home is None else f" --home {shlex.quote(str(home))}"
    for question, statement in EXAMPLES.items():
        command = f'tickhouse sql{there} "{statement}"'
        _out.print(f"\n[dim]{question}[/dim]\n{escape(command)}", soft_wrap=True, highlight=False)


@app.command()
def skip(
    stream: Annotated[
        str, typer.Argument(metavar="STREAM", help="prices, moving, zscore or trend; it must be stopped.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
) -> None:
    """Let a stream go on past messages that Kafka has lost, and record the gap.

    A stream stops when messages that it was still to read are gone: removed by retention, or with their topic. This
    shows which, asks, adds them to the table [bold]gaps[/bold], and moves the stream behind them; what it has computed
    so far stays. Then start it again: [bold]launch_streams[/bold] in Dagster, or its asset.
    """
    settings = _settings(home=home)
    from orchestration.supervision import skip_gaps
    from tickhouse.contract.topology import JOBS

    if stream not in JOBS:
        raise _failure(f"{stream} is no stream: it is one of {', '.join(JOBS)}", code=2)
    try:
        skips = skip_gaps.find(settings, stream)
        if not skips:
            _out.print(f"Nothing is lost that {stream} was still to read.")
            return
        for query in skips:
            for gap in query.gaps:
                _out.print(f"[yellow]•[/yellow] query {query.query}: {escape(gap.sentence())}", soft_wrap=True)
        if any(gap.reason == "created again" for query in skips for gap in query.gaps):
            _out.print("The offsets begin anew: in [bold]prices[/bold] and [bold]rejects[/bold] they will repeat.")
        if not yes:
            _confirm(f"Let {stream} go on past this for ever?", "Nothing is skipped.")
        skip_gaps.apply(settings, stream, skips)
    except (skip_gaps.SkipFailed, ProcessError) as error:
        raise _failure(f"{error}") from error
    _out.print(f"{stream} is past it, and the table gaps says so. Start it again: launch_streams in Dagster.")


@app.command()
def rebuild(
    stream: Annotated[
        str, typer.Argument(metavar="STREAM", help="prices, moving, zscore or trend; it must be stopped.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
) -> None:
    """Give a stream a new checkpoint that goes on exactly where its results end.

    For a checkpoint that is damaged or lost, was made with other settings, or no longer suits what is published.
    Results that are on the stream's topics are found out and not published again; the stream reads the messages that
    Kafka still has from the first one on. The tables go on where they end. Then start it again:
    [bold]launch_streams[/bold] in Dagster, or its asset.
    """
    settings = _settings(home=home)
    from orchestration.supervision.rebuild import RebuildFailed
    from orchestration.supervision.rebuild import rebuild as replace_checkpoints
    from tickhouse.contract.topology import JOBS

    if stream not in JOBS:
        raise _failure(f"{stream} is no stream: it is one of {', '.join(JOBS)}", code=2)
    if not yes:
        _confirm(f"Replace the checkpoint of {stream}? The old one is moved aside.", "Nothing is replaced.")
    try:
        with _out.status("Looking which results are there"):
            done = replace_checkpoints(settings, stream)
    except (RebuildFailed, ProcessError) as error:
        raise _failure(f"{error}") from error
    for sentence in done:
        _out.print(f"{sentence}.", soft_wrap=True, markup=False, highlight=False)
    _out.print(f"Start {stream} again: launch_streams in Dagster.")


@app.command()
def backfill(
    day: Annotated[str, typer.Argument(metavar="DAY", help="A UTC day, such as 2025-05-08; today as well.")],
    home: Home = None,
) -> None:
    """Recompute a day of moving_stats, zscores, higher and lower from the stored prices, late ticks included.

    The day is replaced in each table in one step; streams may run. MongoDB follows with its next load. The job
    [bold]backfill[/bold] in Dagster does the same.
    """
    settings = _settings(home=home)
    import datetime

    from deltalake.exceptions import DeltaError

    from orchestration.lakehouse.tables import Lakehouse
    from orchestration.recompute.backfill import BackfillError
    from orchestration.recompute.backfill import backfill as replace_day
    from spark_jobs.sinks.table_lock import TableBusy

    try:
        wanted = datetime.date.fromisoformat(day)
    except ValueError as error:
        raise _failure(f"{day} is not a day such as 2025-05-08", code=2) from error
    lateness_ms = round(settings.lateness_seconds * 1_000)
    try:
        for done in replace_day(Lakehouse(settings.lakehouse), settings.home, wanted, lateness_ms):
            _out.print(escape(done.text()), soft_wrap=True)
    except (BackfillError, TableBusy, DeltaError, OSError) as error:
        raise _failure(f"{error}") from error


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
) -> None:
    """Delete all data of a home: topics, tables, checkpoints, collections. Downloaded tools stay."""
    settings = _settings(home=home)
    from orchestration.local.home import look, require_removable
    from orchestration.local.home_lock import AlreadyRunning, holder
    from orchestration.stack.lifecycle import remove_data

    folder = settings.home
    try:
        if holder(folder) is not None:
            raise _failure(f"the stack of {folder} is running: `tickhouse down --home {folder}` first")
        require_removable(folder)
        _tell_what_goes(look(folder))
        if not yes:
            _confirm(f"Delete this from {folder}?", "Nothing is deleted.")
        try:
            removed = remove_data(folder)
        except OSError as error:
            raise _failure(
                f"{error.filename} cannot be deleted ({error.strerror}); what came before it is deleted. Remove the "
                "cause and run the same again"
            ) from error
    except (AlreadyRunning, NotOurs, ProcessError) as error:
        raise _failure(f"{error}") from error
    done = "holds nothing of Tickhouse any more" if removed.stays else "is deleted"
    _out.print(f"{escape(str(folder))} {done}.", soft_wrap=True)
    for uri in (settings.lakehouse, settings.checkpoints):
        if not Path(uri).is_relative_to(folder):
            _out.print(
                f"[yellow]•[/yellow] {escape(uri)} is not in it and stays: remove it, too, before the next start.",
                soft_wrap=True,
            )


def _tell_what_goes(contents: Contents) -> None:
    from rich.filesize import decimal

    for part, tally in contents.parts.items():
        size = f"{tally.files:,} files, {decimal(tally.size_bytes)}"
        _out.print(f"  [bold]{part.name:<15}[/bold]{part.content:<26}{size}", soft_wrap=True, highlight=False)
    for path, reason in contents.stays:
        _out.print(f"[yellow]•[/yellow] {escape(str(path))} stays: {reason}.", soft_wrap=True, highlight=False)
