"""The accept rule on every other Python of this machine that is supported: the same verdicts, for the same reasons."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from orchestration.settings import PROJECT_ROOT
from tests.verdicts import digest

SEED, COUNT = 11, 6_000
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/*/bin", "~/.pyenv/versions/*/bin", "~/.local/share/uv/python/*/bin")
_ASK = "import platform, sys; print(platform.python_implementation(), '%d.%d.%d' % sys.version_info[:3])"
_TESTS = ("test_validation.py", "test_validation_properties.py", "test_batch_validation.py", "test_strict_json.py")


def others() -> dict[str, Path]:
    """By version: one executable of each that differs from this one's."""
    found: dict[str, Path] = {}
    for pattern in _FOLDERS:
        folder = Path(pattern).expanduser()
        for path in sorted(Path(folder.anchor).glob(f"{str(folder)[1:]}/python3*")):
            if not re.fullmatch(r"python3(\.[0-9]+)?", path.name) or not os.access(path, os.X_OK):
                continue
            asked = subprocess.run([path, "-c", _ASK], capture_output=True, text=True, timeout=30)
            name, _, version = asked.stdout.strip().partition(" ")
            numbers = tuple(int(part) for part in version.split(".")) if version else ()
            if name == "CPython" and numbers >= (3, 11) and numbers != sys.version_info[:3]:
                found.setdefault(version, path)
    return found


OTHERS = others()


@pytest.fixture(scope="module")
def expected() -> str:
    return digest(SEED, COUNT)


@pytest.mark.skipif(not OTHERS, reason="there is no other supported CPython on this machine")
@pytest.mark.parametrize("version", OTHERS)
def test_the_verdicts_are_the_same(version: str, expected: str) -> None:
    command = [str(OTHERS[version]), "-P", "-m", "tests.verdicts", str(SEED), str(COUNT)]
    environment = {"PYTHONPATH": str(PROJECT_ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("version", OTHERS)
def test_the_rule_passes_its_tests_where_the_libraries_fit(version: str, tmp_path: Path) -> None:
    """For batches, too, on Pythons of the environment's own minor version, whose libraries it can load."""
    if not version.startswith("{}.{}.".format(*sys.version_info)):
        pytest.skip(f"the environment's numpy and pyarrow are not for Python {version}: the rule for one message only")
    paths = (str(PROJECT_ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    environment = {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
    }
    files = [str(PROJECT_ROOT / "tests" / "unit" / name) for name in _TESTS]
    # The fuzz is run above.
    options = ["--noconftest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "not hundred_thousand"]
    command = [str(OTHERS[version]), "-P", "-m", "pytest", *options, *files]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
