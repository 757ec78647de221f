"""`python -m docs.generate`: write docs/reference.md from the code, so that it says what the code does."""

from __future__ import annotations

import inspect
import json
import re
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from orchestration.cli.app import app
from orchestration.definitions import build_definitions
from orchestration.lakehouse import backfill_log, gap_log
from orchestration.local.broker import PARTITIONS
from orchestration.serving.load import documents_of
from orchestration.serving.mongo import COLLECTIONS, DATABASE
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from producer.settings import ProducerSettings
from producer.ticks import tick_message
from spark_jobs.settings import StreamSettings
from tickhouse.contract.encoding import form_messages, pack_results
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, TICKS_TOPIC, WINDOWS, ZSCORE_TOPIC
from tickhouse.contract.tables import COLUMNS
from tickhouse.contract.topology import JOBS, TOPICS

FILE = PROJECT_ROOT / "docs" / "reference.md"
_HEAD = """# Reference

Made from the code by `python -m docs.generate`; a test fails when it is not up to date. What the words mean is in
[concepts.md](concepts.md).
"""
_SETTINGS: dict[type[BaseSettings], str] = {
    OrchestrationSettings: "the local stack, Dagster and the `tickhouse` command",
    ProducerSettings: "the producer",
    StreamSettings: "the stream jobs",
}
_TOPIC_TEXTS = {
    TICKS_TOPIC: "one message for each price that was observed or replayed",
    MOVING_TOPIC: "the statistics of six windows, one message for each distinct on-time tick",
    ZSCORE_TOPIC: "the z-scores of six windows, one message for each distinct on-time tick",
    HIGHER_TOPIC: "seconds to the first strictly higher price, one message for each distinct on-time tick",
    LOWER_TOPIC: "seconds to the first strictly lower price, one message for each distinct on-time tick",
}
_SAMPLE_MS = 1_746_709_560_000


def render() -> str:
    """The whole text of the reference."""
    parts = (_HEAD, _settings(), _topics(), _delta_tables(), _collections(), _command(), _dagster())
    return "\n".join(part.strip() + "\n" for part in parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _sentence(text: str | None) -> str:
    """What something is; further paragraphs are about how to use it on Dagster's pages."""
    return " ".join((text or "").partition("\n\n")[0].split())


# --- settings ---------------------------------------------------------------------------------------------------


def _settings() -> str:
    texts = [
        "## Settings\n\nEnvironment variables, read once at the start. Where the same name is listed twice, every part "
        "reads it, and what\n`tickhouse up` is told goes to the parts that it starts. Empty counts as not set.\n"
    ]
    for model, of in _SETTINGS.items():
        rows = [
            [f"`TICKHOUSE_{name.upper()}`", _type(field.annotation), _default(field), _bounded(field)]
            for name, field in model.model_fields.items()
        ]
        file = Path(inspect.getfile(model)).relative_to(PROJECT_ROOT)
        texts.append(f"### Of {of} (`{file}`)\n\n" + _table(("variable", "type", "default", "what it is"), rows))
    return "\n".join(texts)


def _type(annotation: Any) -> str:
    if annotation is SecretStr:
        return "secret"
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) in (list, tuple):
        return "list, by commas"
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    if parts:
        return " or ".join(_type(part) for part in parts)
    return {str: "text", bool: "true or false", int: "whole number", float: "number", Path: "path"}[annotation]


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.annotation is SecretStr:
        value = value.get_secret_value()
    if value is None or value in ("", Path()):
        return ""
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(PROJECT_ROOT)
    return f"`{','.join(value) if isinstance(value, (list, tuple)) else value}`"


_BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))


def _bounded(field: FieldInfo) -> str:
    bounds = [
        f"{words} {getattr(limit, name)}"
        for limit in field.metadata
        for name, words in _BOUNDS
        if getattr(limit, name, None) is not None
    ]
    text = _sentence(field.description)
    return f"{text} ({', '.join(bounds)})" if bounds else text


# --- topics, tables, collections --------------------------------------------------------------------------------


def _messages() -> dict[str, bytes]:
    """A message of each topic, written by what writes them."""
    windows = len(WINDOWS)
    time = np.array([_SAMPLE_MS], dtype=np.int64)
    by_window = np.arange(1, windows + 1, dtype=np.float64).reshape(windows, 1)
    averages, scores = 99_329.18 - by_window, 1.25 - by_window / 8
    counts = np.array([[length // 100] for length in WINDOWS.values()], dtype=np.int64)
    results: dict[str, bytes] = {
        MOVING_TOPIC: pack_results(time, averages, by_window * 4, counts),
        ZSCORE_TOPIC: pack_results(time, scores),
        HIGHER_TOPIC: pack_results(time, np.array([8_258])),
        LOWER_TOPIC: pack_results(time, np.array([20_000])),
    }
    formed = {topic: form_messages(topic, [("BTCUSDT", packed)])[1][0] for topic, packed in results.items()}
    return {TICKS_TOPIC: tick_message("BTCUSDT", "99340.12", _SAMPLE_MS * 1_000_000), **formed}


def _topics() -> str:
    messages = _messages()
    texts = [
        f"## Topics\n\nKey = symbol, value = strict JSON, {PARTITIONS} partitions each. `null` stands where there is "
        "no number; a number is\nthe shortest text that reads back as the same double.\n"
    ]
    for topic in TOPICS:
        writers = [f"the stream `{spec.name}`, exactly once" for spec in JOBS.values() if topic in spec.outputs]
        readers = [f"`{spec.name}`" for spec in JOBS.values() if topic in spec.inputs]
        texts.append(
            f"### `{topic}`\n\n{_TOPIC_TEXTS[topic].capitalize()}. "
            f"Written by {' and '.join(writers) or 'the producer'}; "
            f"read by {', '.join(readers) or 'no stream but the copy to its table'}.\n\n"
            f"```json\n{_folded(json.loads(messages[topic]))}\n```\n"
        )
    return "\n".join(texts)


def _folded(message: Mapping[str, Any]) -> str:
    """A message as JSON, with each window on a line of its own."""
    members = []
    for name, value in message.items():
        if isinstance(value, list):
            entries = ",\n  ".join(json.dumps(entry) for entry in value)
            members.append(f"{json.dumps(name)}: [\n  {entries}]")
        else:
            members.append(f"{json.dumps(name)}: {json.dumps(value)}")
    return "{" + ", ".join(members) + "}"


def _delta_tables() -> str:
    owners = {table: spec for spec in JOBS.values() for table in spec.tables}
    texts = [
        "## Delta tables\n\nUnder `TICKHOUSE_LAKEHOUSE`, by default `.tickhouse/lakehouse`; partitioned by `date`.\n"
    ]
    for table, columns in COLUMNS.items():
        topic = owners[table].archives.get(table)
        source = f"a copy of the topic `{topic}`" if topic else f"from the topic `{owners[table].inputs[0]}`"
        texts.append(
            f"### `{table}`\n\nWritten by the stream `{owners[table].name}`, {source}.\n\n"
            + _table(
                ("column", "type", "what it is"),
                ([f"`{one.name}`", f"`{one.type}`", _sentence(one.text)] for one in columns),
            )
        )
    texts.append(
        f"### `{gap_log.NAME}`\n\nMessages that Kafka had lost and that somebody decided to go on past "
        "(`tickhouse skip`); there once that has\nhappened.\n\n" + _fields(gap_log.SCHEMA)
    )
    texts.append(
        f"### `{backfill_log.NAME}`\n\nWhich rows of the result tables were recomputed, and from which messages "
        "(`tickhouse backfill`); there once that has\nhappened.\n\n" + _fields(backfill_log.SCHEMA)
    )
    return "\n".join(texts)


def _fields(schema: pa.Schema) -> str:
    return _table(("column", "type"), ([f"`{field.name}`", f"`{field.type}`"] for field in schema))


def _collections() -> str:
    scores = [{"window": window, "zscore_price": 1.125} for window in WINDOWS]
    row = {"symbol": ["BTCUSDT"], "timestamp": pa.array([_SAMPLE_MS * 1_000], pa.timestamp("us", "UTC"))}
    window = next(iter(WINDOWS))
    (document,) = documents_of(pa.RecordBatch.from_pydict({**row, "z_scores": [scores]}), [window])[window]
    shown = {**document, "timestamp": {"$date": document["_id"].partition("|")[2]}}
    names = "\n".join(f"- `{name}`: the z-scores of the window {window}" for window, name in COLLECTIONS.items())
    return (
        f"## MongoDB\n\nDatabase `{DATABASE}`, one collection for each window, one document for each row of `zscores`, "
        f"index `(symbol, timestamp)`.\n\n{names}\n\n```json\n{json.dumps(shown)}\n```\n"
    )


# --- the command ------------------------------------------------------------------------------------------------


def _command() -> str:
    commands: Mapping[str, Any] = typer.main.get_group(app).commands
    texts = ["## The command `tickhouse`\n"]
    for name, command in commands.items():
        arguments = [one.metavar or one.name.upper() for one in command.params if one.param_type_name == "argument"]
        options = [
            [
                ", ".join(f"`{text}`" for text in (*one.opts, *one.secondary_opts)),
                _option_default(one),
                _plain(one.help),
            ]
            for one in command.params
            if one.param_type_name == "option"
        ]
        texts.append(f"### `{' '.join(['tickhouse', name, *arguments])}`\n\n{_paragraphs(command.help)}\n")
        texts.append(_table(("option", "default", "what it does"), options))
    return "\n".join(texts)


def _option_default(option: Any) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    if not option.show_default or option.default is None or isinstance(option.default, bool):
        return ""
    return f"`{option.default}`"


def _paragraphs(text: str) -> str:
    return "\n\n".join(_sentence(_plain(part)) for part in re.split(r"\n\s*\n", text))


def _plain(text: str | None) -> str:
    """Help without the marks that only the terminal's library reads."""
    return _sentence(re.sub(r"\[/?(?:bold|dim|red|green|yellow)\]", "", text or ""))


# --- Dagster ----------------------------------------------------------------------------------------------------


def _dagster() -> str:
    definitions = build_definitions(OrchestrationSettings(home=PROJECT_ROOT / ".tickhouse"))
    repository = definitions.get_repository_def()
    graph = definitions.resolve_asset_graph()
    texts = ["## Dagster\n\n### Assets\n"]
    assets = sorted(graph.asset_nodes, key=lambda node: (node.group_name or "", node.key.to_user_string()))
    texts.append(
        _table(
            ("asset", "group", "what it is"),
            ([f"`{one.key.to_user_string()}`", one.group_name or "", _sentence(one.description)] for one in assets),
        )
    )
    texts.append("### Checks\n")
    texts.append(
        _table(
            ("asset", "check", "what it requires"),
            (
                [f"`{key.asset_key.to_user_string()}`", f"`{key.name}`", _sentence(graph.get(key).description)]
                for key in sorted(graph.asset_check_keys, key=lambda key: (key.asset_key.to_user_string(), key.name))
            ),
        )
    )
    texts.append("### Jobs\n")
    jobs = sorted((job for job in repository.get_all_jobs() if not job.name.startswith("__")), key=lambda job: job.name)
    texts.append(_table(("job", "what it does"), ([f"`{job.name}`", _sentence(job.description)] for job in jobs)))
    for job in jobs:
        rows = list(_run_config(job))
        if rows:
            texts.append(f"Run configuration of `{job.name}`:\n")
            texts.append(_table(("op", "field", "default", "what it is"), rows))
    texts.append("### Sensors and schedules\n")
    automatic = [
        *((one.name, f"every {one.minimum_interval_seconds} s", one.description) for one in repository.sensor_defs),
        *(
            (one.name, f"`{one.cron_schedule}` {one.execution_timezone}", one.description)
            for one in repository.schedule_defs
        ),
    ]
    texts.append(
        _table(
            ("name", "when", "what it does"),
            ([f"`{name}`", when, _sentence(text)] for name, when, text in sorted(automatic)),
        )
    )
    return "\n".join(texts)


def _run_config(job: dg.JobDefinition) -> Iterable[Sequence[str]]:
    for op in job.all_node_defs:
        fields = getattr(op.config_schema.config_type, "fields", None) if isinstance(op, dg.OpDefinition) else None
        for name, field in sorted((fields or {}).items()):
            default = f"`{json.dumps(field.default_value)}`" if field.default_provided else ""
            yield [f"`{op.name}`", f"`{name}`", default, _sentence(field.description)]


def main() -> None:
    """Write the file."""
    FILE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{FILE.relative_to(PROJECT_ROOT)} is written\n")


if __name__ == "__main__":
    main()
