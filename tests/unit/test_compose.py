"""docker-compose.yml and Dockerfile, checked without a container engine: form, hardening, and one set of settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.local.broker import _CONFIGURATION, _TEN_YEARS_MINUTES
from orchestration.services import _DAGSTER_YAML
from orchestration.settings import PREFIX, PROJECT_ROOT, OrchestrationSettings
from producer.settings import ProducerSettings
from spark_jobs.settings import StreamSettings

TEXT = (PROJECT_ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PACKAGES = (OrchestrationSettings, ProducerSettings, StreamSettings)
KNOWN = {f"{PREFIX}{name.upper()}" for package in PACKAGES for name in package.model_fields}


def fits_the_schema(path: Path) -> bool:
    """Whether a file has the form that the compose specification gives, by the copy that check-jsonschema carries."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_it_has_the_form_of_a_compose_file(tmp_path: Path) -> None:
    assert fits_the_schema(PROJECT_ROOT / "docker-compose.yml")
    (tmp_path / "wrong.yml").write_text(yaml.safe_dump(COMPOSE | {"services": {"kafka": {"imagine": "kafka"}}}))
    assert not fits_the_schema(tmp_path / "wrong.yml")


def test_every_part_is_there() -> None:
    wanted = {"kafka", "mongo", "spark-master", "spark-worker", "streams", "code-server", "webserver", "daemon"}
    assert set(SERVICES) == wanted | {"producer"}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{TICKHOUSE_[A-Z_]+:-[0-9]+\}:[0-9]+", port), port
    assert "network_mode" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_a_release(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:[0-9]+\.[0-9]+\.[0-9]+", SERVICES[name]["image"])


def test_our_image_starts_from_a_pinned_one_and_installs_only_what_is_hashed() -> None:
    assert re.findall(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE) == ["python:3.11.11-slim-bookworm"]
    assert DOCKERFILE.count("pip install") == 2
    assert "--require-hashes --requirement requirements.txt" in DOCKERFILE
    assert "--no-deps --no-build-isolation --editable ." in DOCKERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_runs_as_root_or_can_become_it(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_our_image_ends_as_a_user_of_its_own_the_one_that_compose_names() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["tickhouse"]
    assert "useradd --uid 10001 " in DOCKERFILE
    assert {service["user"] for service in SERVICES.values() if service["image"].startswith("tickhouse:")} == {
        "10001:10001"
    }


@pytest.mark.parametrize("name", SERVICES)
def test_each_tells_its_health_and_waits_for_that_of_others(name: str) -> None:
    service = SERVICES[name]
    if name == "streams":  # it ends
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    for other, condition in service.get("depends_on", {}).items():
        ends = other == "streams"
        assert condition == {"condition": "service_completed_successfully" if ends else "service_healthy"}


def test_what_must_survive_is_in_volumes_that_are_declared() -> None:
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    }
    assert used == set(COMPOSE["volumes"])
    for name in ("kafka", "mongo"):
        assert SERVICES[name]["volumes"]
    for name in ("spark-worker", "code-server", "daemon", "webserver", "producer", "streams"):
        assert "home:/var/lib/tickhouse" in SERVICES[name]["volumes"]


def test_there_is_no_default_password() -> None:
    for line in TEXT.splitlines():
        if line.lstrip().startswith("#"):
            continue
        for word in re.findall(r"\$\{[^}]*PASSWORD[^}]*\}", line):
            assert word.startswith("${MONGO_PASSWORD:?"), line
        if "PASSWORD" in line:
            assert "${MONGO_PASSWORD:?" in line, line
    assert not re.search(r"//[^/$@\s]+:[^$@\s]+@", TEXT), "a password in an address"
    assert "PASSWORD" not in DOCKERFILE


def test_every_setting_named_is_one_that_some_package_reads() -> None:
    named = set(re.findall(r"TICKHOUSE_[A-Z_]+", "\n".join(line for line in TEXT.splitlines() if "#" not in line)))
    named |= set(re.findall(r"TICKHOUSE_[A-Z_]+", DOCKERFILE))
    assert named >= {"TICKHOUSE_HOME", "TICKHOUSE_SPARK_MASTER"}
    assert named <= KNOWN


def test_defaults_are_those_of_the_local_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)
    fields = {
        name: field for package in PACKAGES for name, field in reversed(list(package.model_fields.items()))
    } | OrchestrationSettings.model_fields
    fields["source"] = ProducerSettings.model_fields["source"]  # here the producer reads it itself
    defaults = dict(re.findall(r"\$\{(TICKHOUSE_[A-Z_]+):-([^}]*)\}", TEXT))
    for variable, default in defaults.items():
        expected = fields[variable.removeprefix(PREFIX).lower()].default
        assert default == (",".join(expected) if isinstance(expected, list | tuple) else str(expected)), variable


def test_the_broker_keeps_what_exactly_once_rests_on_as_the_local_one_does() -> None:
    local = dict(
        line.split("=", 1)
        for line in _CONFIGURATION.format(
            port=1, controller_port=2, data="", retention_minutes=_TEN_YEARS_MINUTES
        ).splitlines()
        if not line.startswith("#")
    )
    here = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in SERVICES["kafka"]["environment"].items()
    }
    shared = {
        name
        for name in local
        if re.search(r"auto\.create|offsets\.|transaction|producer\.id|share\.|rebalance|log\.retention", name)
    }
    assert len(shared) >= 13
    assert {name: here.get(name) for name in shared} == {name: local[name] for name in shared}


def test_dagster_is_set_up_as_in_the_local_stack() -> None:
    here = yaml.safe_load((PROJECT_ROOT / "deploy" / "dagster.yaml").read_text(encoding="utf-8"))
    assert here == yaml.safe_load(_DAGSTER_YAML)
    assert here["telemetry"] == {"enabled": False}


def test_all_that_the_image_copies_is_let_through_by_dockerignore() -> None:
    allowed = {line[1:] for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    }
    assert copied == allowed
    assert all((PROJECT_ROOT / name).exists() for name in copied)
