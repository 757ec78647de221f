"""What programs get of the caller's environment: a table of cases, and that no program is started in any other way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orchestration.cli import entry
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from orchestration.supervision.streams import Streams
from tickhouse import environment
from tickhouse.environment import Account, Need, child_environment, left_out, told

SCRATCH = Path("/scratch")
ACCOUNT = Account("somebody", Path("/home/somebody"))
STRANGERS = {
    # which code Python runs
    "PYTHONPATH": "/else", "PYTHONHOME": "/else", "PYTHONSTARTUP": "/else/start.py", "PYTHONUSERBASE": "/else",
    "PYTHONSAFEPATH": "", "PYTHONNOUSERSITE": "", "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "ascii", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "PYTHONINSPECT": "1",
    # Spark, Hadoop and Java
    "PYSPARK_SUBMIT_ARGS": "--bogus", "PYSPARK_PYTHON": "/else", "PYSPARK_DRIVER_PYTHON": "jupyter",
    "PYSPARK_GATEWAY_PORT": "1", "SPARK_HOME": "/else", "SPARK_CONF_DIR": "/else", "SPARK_LOCAL_IP": "192.0.2.1",
    "SPARK_LOCAL_DIRS": "/else", "SPARK_SUBMIT_OPTS": "-bogus", "SPARK_LAUNCHER_OPTS": "-bogus", "SPARK_TESTING": "1",
    "HADOOP_CONF_DIR": "/else", "HADOOP_HOME": "/else", "HADOOP_USER_NAME": "hdfs", "YARN_CONF_DIR": "/else",
    "HIVE_CONF_DIR": "/else", "JAVA_TOOL_OPTIONS": "-bogus", "_JAVA_OPTIONS": "-bogus", "JDK_JAVA_OPTIONS": "-bogus",
    "CLASSPATH": "/else", "KAFKA_OPTS": "-bogus", "KAFKA_HEAP_OPTS": "-bogus", "KAFKA_LOG4J_OPTS": "-bogus",
    # the loader, the allocator, libraries
    "LD_PRELOAD": "/else.so", "LD_LIBRARY_PATH": "/else", "LD_AUDIT": "/else.so", "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.check=3", "OPENBLAS_NUM_THREADS": "64", "OMP_NUM_THREADS": "64",
    "OPENSSL_CONF": "/else", "MPLCONFIGDIR": "/else", "MPLBACKEND": "tkagg",
    # shells, places, languages
    "BASH_ENV": "/else", "ENV": "/else", "BASH_FUNC_dirname%%": "() { echo /else; }", "CDPATH": "/else",
    "TMPDIR": "/else", "TZ": "Mars/Phobos", "LANG": "tr_TR.UTF-8", "LC_ALL": "ja_JP.SJIS", "LC_NUMERIC": "de_DE.UTF-8",
    "LANGUAGE": "tr", "XDG_CONFIG_HOME": "/else",
    # other projects
    "DAGSTER_HOME": "/else", "DAGSTER_PROJECT_ENV_FILE_PATHS": "{}", "MONGO_URI": "mongodb://else",
    "AWS_ACCESS_KEY_ID": "else", "AWS_ENDPOINT_URL": "http://else", "AZURE_STORAGE_ACCOUNT_NAME": "else",
    # ways to the outside
    "http_proxy": "http://else:1", "HTTPS_PROXY": "http://else:1", "ALL_PROXY": "socks5h://else:1",
    "grpc_proxy": "http://else:1", "GRPC_PROXY": "http://else:1", "PIP_INDEX_URL": "http://else",
}  # fmt: skip
OWN = {"PATH": "/usr/bin:/bin", "HOME": "/home/somebody", "JAVA_HOME": "/java", "SSL_CERT_FILE": "/authorities"}


def made(given: Mapping[str, str], *needs: Need) -> dict[str, str]:
    return child_environment(given, SCRATCH, ACCOUNT, needs)


def test_nothing_of_a_strangers_passes() -> None:
    assert made(OWN | STRANGERS) == made(OWN)
    assert made(OWN | STRANGERS) == {
        **OWN,
        **environment.DECIDED,
        "USER": "somebody",
        "LOGNAME": "somebody",
        "TMPDIR": "/scratch",
    }


def test_once_is_enough() -> None:
    given = OWN | STRANGERS | {"TICKHOUSE_HOME": "/x", "TICKHOUSE_KEEP_ENVIRONMENT": "TZ", "no_proxy": "a.test"}
    needs: tuple[Need, ...] = ("proxies", "cloud")
    assert made(made(given, *needs), *needs) == made(given, *needs)


@pytest.mark.parametrize(
    ("needs", "passes"),
    [
        (("proxies",), {"http_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY"}),
        (
            ("cloud",),
            {"http_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY"}
            | {"AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AZURE_STORAGE_ACCOUNT_NAME"},
        ),
        (("pip",), {"http_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY", "PIP_INDEX_URL"}),
    ],
)
def test_what_only_some_programs_get(needs: tuple[Need, ...], passes: set[str]) -> None:
    assert made(OWN | STRANGERS, *needs).keys() - made(OWN).keys() == passes


@pytest.mark.parametrize(
    ("given", "excepted"),
    [
        ({"http_proxy": "http://p:1"}, "127.0.0.1,localhost,::1"),
        ({"ALL_PROXY": "socks5h://p", "no_proxy": "a.test, b.test"}, "a.test,b.test,127.0.0.1,localhost,::1"),
        ({"https_proxy": "p", "no_proxy": "a.test", "NO_PROXY": "b.test"}, "a.test,b.test,127.0.0.1,localhost,::1"),
    ],
)  # fmt: skip
def test_no_proxy_is_asked_for_this_machine(given: dict[str, str], excepted: str) -> None:
    variables = made(OWN | given, "proxies")
    assert (variables["no_proxy"], variables["NO_PROXY"]) == (excepted, excepted)


def test_programs_are_not_looked_for_in_the_current_folder() -> None:
    assert made(OWN | {"PATH": ":/usr/bin:.:bin:~/bin:/bin:"})["PATH"] == "/usr/bin:/bin"
    assert made({})["PATH"] == os.defpath.lstrip(":")


def test_what_somebody_names_is_passed_on() -> None:
    given = OWN | STRANGERS | {environment.KEEP: "PYTHONPATH, LD_PRELOAD TZ,MISSING"}
    kept = made(given)
    assert (kept["PYTHONPATH"], kept["LD_PRELOAD"], kept["TZ"]) == ("/else", "/else.so", "Mars/Phobos")
    assert "MISSING" not in kept
    assert "PYTHONPATH" not in left_out(given)
    assert any("LD_PRELOAD, PYTHONPATH, TZ: passed on" in sentence for sentence in told(given, in_the_cloud=False))


def test_what_is_left_out_is_told() -> None:
    assert left_out(OWN) == []
    assert list(told(OWN, in_the_cloud=False)) == []
    ignored = set(left_out(OWN | STRANGERS))
    assert {"PYTHONPATH", "SPARK_CONF_DIR", "_JAVA_OPTIONS", "LD_PRELOAD", "AWS_ACCESS_KEY_ID", "grpc_proxy"} <= ignored
    assert not {"http_proxy", "PATH", "PIP_INDEX_URL", "PYTHONSAFEPATH"} & ignored
    assert "AWS_ACCESS_KEY_ID" not in left_out(STRANGERS, in_the_cloud=True)
    proxies, rest = told(OWN | STRANGERS, in_the_cloud=False)
    assert proxies.startswith("ALL_PROXY, HTTPS_PROXY, http_proxy: for the exchange, the webhook and fetches only")
    assert environment.KEEP in rest


def test_streams_get_no_more_when_somebody_elses_code_location_launches_them(tmp_path: Path) -> None:
    streams = Streams(OrchestrationSettings(home=tmp_path), environment=dict(os.environ) | STRANGERS)
    variables = streams._environment("moving")
    assert {name for name, value in STRANGERS.items() if variables.get(name) == value} == set()
    assert variables["PYTHONPATH"] == str(PROJECT_ROOT)
    assert Path(variables["TMPDIR"]).is_relative_to(tmp_path)
    distant = OrchestrationSettings(home=tmp_path, lakehouse="s3a://tables", checkpoints="relative")
    assert distant.checkpoints == str(Path("relative").absolute())
    assert Streams(distant, environment=STRANGERS)._environment("moving")["AWS_ACCESS_KEY_ID"] == "else"


def test_a_user_without_a_name_or_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    assert environment.find_account({}, tmp_path) == Account("tickhouse", tmp_path)
    assert environment.find_account({"HOME": "/nowhere"}, tmp_path).home == tmp_path
    assert environment.find_account({"HOME": "relative"}, tmp_path).home == tmp_path
    assert environment.find_account({"HOME": str(tmp_path)}, Path("/x")) == Account("tickhouse", tmp_path)
    assert not environment.user_has_a_name()


def test_temporary_files_are_in_the_home_unless_that_does_not_suit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    home = Path(tempfile.mkdtemp())
    assert environment.scratch_folder(home) == home / "tmp"
    assert environment.scratch_folder(home, "moving") == home / "tmp" / "moving"
    long = tmp_path / ("x" * 100)
    assert environment.scratch_folder(long) == Path("/tmp")
    assert environment.scratch_folder(long, "moving") == long / "tmp" / "moving", "no socket is made there"
    monkeypatch.setattr(environment, "executes", lambda folder: folder == Path("/tmp"))
    assert environment.scratch_folder(home, "moving") == Path("/tmp")
    assert environment.scratch_folder(home) == home / "tmp"


def test_the_command_starts_anew_when_python_was_told_of_other_code(tmp_path: Path) -> None:
    for module in ("typer", "orchestration_settings", "typing_extensions", "pydantic"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('a stranger ran')")
    command = [str(Path(sys.executable).with_name("tickhouse")), "--help"]
    for given in ({"PYTHONPATH": str(tmp_path)}, {"PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2"}):
        answer = subprocess.run(
            command, cwd=tmp_path, env=dict(os.environ) | given, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr
        assert "Usage" in answer.stdout


@pytest.mark.parametrize(
    ("names", "kept", "found"),
    [
        (["PATH", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONUNBUFFERED"], "", []),
        (["PYTHONPATH", "PYTHONWARNINGS"], "", ["PYTHONPATH", "PYTHONWARNINGS"]),
        (["PYTHONPATH", "PYTHONWARNINGS"], "LD_PRELOAD,PYTHONPATH", ["PYTHONWARNINGS"]),
    ],
)
def test_what_makes_it_start_anew(names: list[str], kept: str, found: list[str]) -> None:
    assert entry.misleading(names, kept) == found


def _starts(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module = node.func.value
            name = f"{module.id}.{node.func.attr}" if isinstance(module, ast.Name) else ""
            if name in ("subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_output"):
                yield node
            assert name not in ("os.system", "os.popen", "os.execvp", "os.spawnv", "subprocess.getoutput"), name


@pytest.mark.parametrize("package", ["orchestration", "producer", "spark_jobs", "tickhouse"])
def test_every_program_is_started_with_an_environment_that_was_decided(package: str) -> None:
    careless = [
        f"{path.relative_to(PROJECT_ROOT)}:{call.lineno}"
        for path in (PROJECT_ROOT / package).rglob("*.py")
        for call in _starts(ast.parse(path.read_text(encoding="utf-8")))
        if not any(keyword.arg == "env" for keyword in call.keywords)
    ]
    assert careless == []
