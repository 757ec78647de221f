"""Every block of the documentation is run, or listed with the reason why not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from orchestration.definitions import build_definitions
from orchestration.lakehouse.sql import query
from orchestration.local.artifacts import spark_jars
from orchestration.local.home import mark
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from tests.docs.blocks import RULES, Block, Treatment, blocks, commands, spoken_commands, treatment
from tests.docs.conftest import Project
from tests.reference.ideal import zscore
from tests.reference.model import Expected

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
ALL = blocks()
MONGO = "mongodb://127.0.0.1:27017"
BROKER = "127.0.0.1:9092"


def of(*languages: str) -> pytest.MarkDecorator:
    """The blocks in these languages, as a test's parameter."""
    return pytest.mark.parametrize("block", [block for block in ALL if block.language in languages], ids=str)


def python_blocks(*, spark: bool) -> pytest.MarkDecorator:
    """Those in Python, with or without Spark."""
    chosen = [block for block in ALL if block.language == "python" and ("spark" in block.text) is spark]
    return pytest.mark.parametrize("block", chosen, ids=str)


def environment(project: Project, tools: Path | str) -> dict[str, str]:
    """That of a user who has `.venv/bin` on the path; ports that are free, whatever else runs here."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TICKHOUSE_")}
    path = f"{project.folder}/.venv/bin{os.pathsep}{os.environ['PATH']}"
    search = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    told = {"PATH": path, "PYTHONPATH": search, "TICKHOUSE_TOOLS": str(tools), "TICKHOUSE_PORT": "0"}
    return clean | told | {"TICKHOUSE_MONGO_PORT": "0", "TICKHOUSE_KAFKA_PORT": "0"}


def run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    """Its output; it must end well."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


def test_every_block_is_of_a_known_kind() -> None:
    assert len(ALL) > 30
    assert {block.language for block in ALL} <= {"sh", "python", "sql", "javascript", "yaml", "json", "mermaid"}
    for block in ALL:
        if block.language == "sh":
            assert commands(block), block
            for command in commands(block):
                treatment(command)


def test_what_is_not_run_has_a_reason_and_every_rule_a_use() -> None:
    said = [command for block in ALL if block.language == "sh" for command in commands(block)]
    for pattern, what, reason in RULES:
        assert bool(reason) is (what is Treatment.elsewhere), pattern
        assert any(re.fullmatch(pattern, command) for command in said), f"no command for the rule {pattern}"


@of("sh")
def test_commands(block: Block, project: Project, tools: Path, tmp_path: Path) -> None:
    surroundings = environment(project, tools)
    script = []
    for command in commands(block):
        match treatment(command):
            case Treatment.run:
                script.append(command)
            case Treatment.idle:
                script.append(f"{command} || [ $? = 3 ]")
            case Treatment.scratch:
                home = tmp_path / ".tickhouse"
                home.mkdir()
                mark(home)
                run(["sh", "-c", command], tmp_path, surroundings)
            case Treatment.options:
                _options_are_known(shlex.split(command))
            case Treatment.dry:
                _make_knows(shlex.split(command))
            case Treatment.stack | Treatment.topics | Treatment.elsewhere:
                pass
    if script:
        run(["sh", "-e", "-c", "\n".join(script)], project.folder, surroundings)


def _options_are_known(words: Sequence[str]) -> None:
    """`tickhouse COMMAND OPTIONS`: the command and each option are in its help."""
    from typer.main import get_group

    from orchestration.cli.app import app

    known = {
        name: {text for one in command.params for text in (*one.opts, *one.secondary_opts)}
        for name, command in get_group(app).commands.items()
    }
    assert words[0] == "tickhouse", words
    assert words[1] in known, words
    unknown = {word for word in words[2:] if word.startswith("--")} - known[words[1]]
    assert not unknown, f"{words}: {unknown}"


def _make_knows(words: Sequence[str]) -> None:
    """A target of the Makefile, without doing it; what it is told in ARGS is looked up where it is the command's."""
    run([*words, "--dry-run"], PROJECT_ROOT, dict(os.environ))
    for word in words:
        if words[1] == "up" and word.startswith("ARGS="):
            _options_are_known(["tickhouse", "up", *shlex.split(word.removeprefix("ARGS="))])


def test_commands_in_running_text_exist() -> None:
    for page, words in spoken_commands():
        if words[0] == "make":
            _make_knows(words)
        else:
            assert page
            _options_are_known(words)


@of("sql")
def test_sql(block: Block, project: Project) -> None:
    assert _rows(list(query(str(project.lakehouse), block.text).rows())) == _far(project.expected)


@python_blocks(spark=False)
def test_python(
    block: Block, project: Project, loaded_mongo: str, published_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    names: dict[str, Any] = {"__name__": "documented"}
    program = block.text.replace(MONGO, loaded_mongo).replace(BROKER, published_broker)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(program, str(block), "exec"), names)
    assert output.getvalue()
    if "answer" in names:
        assert _rows(names["answer"]) == _far(project.expected)


@pytest.mark.whole_machine
@python_blocks(spark=True)
def test_pyspark(block: Block, project: Project, published_broker: str, tools: Path) -> None:
    program = block.text.replace(BROKER, published_broker)
    program += "\nimport json\nprint(json.dumps([list(row) for row in answer.collect()]))\nspark.stop()\n"
    surroundings = environment(project, tools) | {"TICKHOUSE_JARS": str(spark_jars(tools))}
    output = run([sys.executable, "-c", program], project.folder, surroundings)
    assert _rows(json.loads(output.splitlines()[-1])) == _far(project.expected)


def test_console_consumer(project: Project, published_broker: str, tools: Path) -> None:
    (block,) = [
        block
        for block in ALL
        if block.language == "sh" and any(treatment(command) is Treatment.topics for command in commands(block))
    ]
    command = block.text.replace(BROKER, published_broker).replace(".tools/", f"{tools}/")
    surroundings = environment(project, tools)
    lines = run(["sh", "-e", "-c", command], project.folder, surroundings).splitlines()
    assert len(lines) == 10
    for line in lines:
        key, value = line.split("\t")
        assert json.loads(value)["symbol"] == key
    # More than there are: all that were committed, and then the timeout.
    patient = command.replace("--max-messages 10 --timeout-ms 10000", "--timeout-ms 3000")
    lines = run(["sh", "-e", "-c", patient], project.folder, surroundings).splitlines()
    assert len(lines) == len(project.expected.stats)


@of("javascript")
def test_mongosh(block: Block, project: Project, loaded_mongo: str) -> None:
    if shutil.which("mongosh") is None:
        pytest.skip("there is no mongosh on this machine: pymongo asks the same pipeline of the same server")
    command = ["mongosh", "--quiet", f"{loaded_mongo}/btc", "--eval", f"EJSON.stringify({block.text}.toArray())"]
    output = run(command, project.folder, dict(os.environ))
    assert _rows(json.loads(output)) == _far(project.expected)


def test_sql_and_the_tools_are_asked_the_same(project: Project) -> None:
    (command,) = [
        command
        for block in ALL
        if block.page.name == "queries.md" and block.language == "sh"
        for command in commands(block)
        if " AS far " in command
    ]
    assert _rows(list(query(str(project.lakehouse), shlex.split(command)[2]).rows())) == _far(project.expected)


@of("yaml")
def test_run_configurations_are_valid(block: Block, project: Project) -> None:
    name = block.text.splitlines()[0].removeprefix("# ")
    definitions = build_definitions(OrchestrationSettings(home=project.folder / ".tickhouse"))
    assert dg.validate_run_config(definitions.resolve_job_def(name), yaml.safe_load(block.text))


@of("json")
def test_json(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


def test_links_lead_somewhere() -> None:
    for page in {block.page for block in ALL}:
        for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]+)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def _far(expected: Expected) -> list[tuple[str, int, int]]:
    """The answer to the question of queries.md, from the reference's exact sums."""
    answer = []
    for symbol in sorted(expected.symbols):
        scores = [zscore(expected.units[key], stats[0]) for key, stats in expected.stats.items() if key[0] == symbol]
        found = [score for score in scores if score is not None]
        answer.append((symbol, len(found), sum(abs(score) > 3 for score in found)))
    assert all(far > 0 for _, _, far in answer)
    return answer


def _rows(answer: Any) -> list[tuple[str, int, int]]:
    """The rows of whatever a tool answers with."""
    for method in ("rows", "fetchall"):
        if hasattr(answer, method):
            answer = getattr(answer, method)()
    if hasattr(answer, "itertuples"):
        answer = answer.itertuples(index=False, name=None)
    rows = (tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in answer)
    return [(str(symbol), int(scores), int(far)) for symbol, scores, far in rows]
