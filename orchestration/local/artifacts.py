"""Fetches what is not in the Python environment: the JARs of Spark's connectors and of the broker, and mongod.

JARs come through the Ivy that PySpark ships, named one by one without their dependencies; mongod through pip. A fetch
goes to a folder of its own, is verified, then renamed: a folder that is there is complete. What an interrupted fetch
has got is kept for the next one, and of two fetches at once the second waits for the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from orchestration.local import exit_status
from orchestration.local.home_marker import NotOurs, mark
from orchestration.local.java import Java
from tickhouse.environment import helper_environment

PINS = Path(__file__).parent
DEBIAN_TRUST_STORE = Path("/etc/ssl/certs/java/cacerts")
BUNDLES = ("spark-jars", "kafka-jars", "mongod")
MONGOD_IN_WHEEL = Path("fiftyone", "db", "bin", "mongod")

IVY_SETTINGS = """<ivysettings>
  <caches defaultCacheDir={cache}/>
  <settings defaultResolver="central"/>
  <timeout-constraints>
    <timeout-constraint name="patient" connectionTimeout="20000" readTimeout="60000"/>
  </timeout-constraints>
  <resolvers>
    <ibiblio name="central" m2compatible="true" usepoms="false" checksums="" timeoutConstraint="patient"/>
  </resolvers>
</ivysettings>
"""


class FetchFailed(RuntimeError):
    """A tool cannot be fetched or is damaged; the text says what to do."""


class _NoAnswer(FetchFailed):
    """The registry of one bundle does not answer; the text is the bundle's name."""


class Progress(Protocol):
    """Where a fetch reports to: how many files of a bundle have arrived, out of how many."""

    def __call__(self, bundle: str, arrived: int, total: int) -> None: ...


def _silent(bundle: str, arrived: int, total: int) -> None:
    """No report."""


@dataclass(frozen=True)
class Jar:
    """One pinned JAR."""

    organisation: str
    name: str
    revision: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.revision}.jar"


def pinned_jars(bundle: str, pins: Path = PINS) -> list[Jar]:
    """The JARs of a bundle as its list in the folder `pins` has them; those of the stack are beside this module."""
    lines = (pins / f"{bundle}.txt").read_text(encoding="utf-8").splitlines()
    jars = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            sha256, coordinates = line.split()
            organisation, name, revision = coordinates.split(":")
            jars.append(Jar(organisation, name, revision, sha256))
    return jars


def spark_jars(tools: Path) -> Path:
    """Folder of the JARs that Spark needs beside its own."""
    return tools / "spark-jars"


def kafka_jars(tools: Path) -> Path:
    """Folder of the broker's JARs."""
    return tools / "kafka-jars"


def mongod_on_path(environment: Mapping[str, str]) -> Path | None:
    """A mongod that the machine has, which goes before the packaged one."""
    found = shutil.which("mongod", path=environment.get("PATH", ""))
    return Path(found) if found else None


def packaged_mongod(tools: Path) -> Path:
    """Where the packaged mongod is once fetched."""
    return tools / "mongod" / MONGOD_IN_WHEEL


def mongod_binary(tools: Path, environment: Mapping[str, str]) -> Path:
    """The mongod to run: the machine's, else the packaged one (which need not have been fetched yet)."""
    return mongod_on_path(environment) or packaged_mongod(tools)


def missing(tools: Path, environment: Mapping[str, str]) -> list[str]:
    """Names of the bundles that would have to be fetched: of spark-jars, kafka-jars, mongod."""
    names = [bundle for bundle in ("spark-jars", "kafka-jars") if not _complete(tools / bundle, pinned_jars(bundle))]
    if mongod_on_path(environment) is None and not packaged_mongod(tools).is_file():
        names.append("mongod")
    return names


def ensure_tools(
    tools: Path,
    java: Java,
    environment: Mapping[str, str],
    progress: Progress = _silent,
    only: Collection[str] = BUNDLES,
) -> None:
    """Fetch what is missing, all bundles at once; returns at once when nothing is. `only`: some of BUNDLES.

    Raises FetchFailed, with every reason, when something cannot be had.
    """
    names = [name for name in missing(tools, environment) if name in only]
    if names:
        claim(tools, names)
    fetch = _Fetch(tools, java, environment, progress)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(fetch.mongod) if name == "mongod" else pool.submit(fetch.jars, name) for name in names]
        try:
            wait(running)
        except BaseException:
            fetch.cancel()
            raise
    failures = [error for job in running if (error := job.exception()) is not None]
    unanswered = [str(error) for error in failures if isinstance(error, _NoAnswer)]
    reasons = [str(error) for error in failures if not isinstance(error, _NoAnswer)]
    if unanswered:
        reasons.append(
            f"{', '.join(unanswered)} cannot be fetched because the package registry does not answer: check the "
            "network or the proxy and run the same again, what has arrived is kept."
        )
    if reasons:
        raise FetchFailed(" ".join(reasons)) from failures[0]


def ensure_jars(
    tools: Path,
    bundle: str,
    pins: Path,
    java: Java,
    environment: Mapping[str, str],
    progress: Progress = _silent,
) -> Path:
    """Fetch a bundle of JARs that is listed elsewhere, in the folder `pins`, unless it is there; returns its folder.

    Raises FetchFailed when it cannot be had.
    """
    if not _complete(tools / bundle, pinned_jars(bundle, pins)):
        claim(tools, [bundle])
        try:
            _Fetch(tools, java, environment, progress, pins).jars(bundle)
        except _NoAnswer as error:
            raise FetchFailed(f"{bundle} cannot be fetched because the package registry does not answer.") from error
    return tools / bundle


def claim(tools: Path, names: Collection[str]) -> None:
    """Mark the folder of tools, which is created, before anything of these names is made, or replaced, in it.

    Raises FetchFailed where somebody else has made something of such a name.
    """
    tools.mkdir(parents=True, exist_ok=True)
    contents = [made for name in names for made in (name, f".{name}.partial", f".{name}.outdated")]
    try:
        mark(tools, "tools", contents, contents if _is_earlier(tools) else ())
    except NotOurs as error:
        raise FetchFailed(f"{error}.") from error


def _is_earlier(tools: Path) -> bool:
    """Whether a version that wrote no markers has fetched something into that folder."""
    return any((tools / f".{name}.lock").is_file() for name in (*BUNDLES, "class-data"))


def _complete(folder: Path, jars: list[Jar]) -> bool:
    """Whether the folder holds exactly these JARs, byte for byte."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != {jar.file_name for jar in jars}:
        return False
    return all(_sha256(folder / jar.file_name) == jar.sha256 for jar in jars)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Fetch:
    """One fetch of several bundles, whose helper programs can be ended from another thread."""

    def __init__(
        self, tools: Path, java: Java, environment: Mapping[str, str], progress: Progress, pins: Path = PINS
    ) -> None:
        self._tools = tools
        self._pins = pins
        self._java = java
        self._environment = environment
        self._progress = progress
        self._cancelled = False
        self._children: list[subprocess.Popen[bytes]] = []

    def cancel(self) -> None:
        """End what is under way; the waiting threads then fail."""
        self._cancelled = True
        for child in self._children:
            child.kill()

    def jars(self, bundle: str) -> None:
        """Fetch, verify and put in place one bundle of JARs."""
        jars, folder = pinned_jars(bundle, self._pins), self._tools / bundle
        with locked(self._tools / f".{bundle}.lock"):
            if _complete(folder, jars):  # another process has just fetched it
                return
            work = self._tools / f".{bundle}.partial"
            work.mkdir(exist_ok=True)
            arrived = work / "jars"
            shutil.rmtree(arrived, ignore_errors=True)
            _write_ivy_files(work, jars)
            self._run_ivy(work, bundle, len(jars))
            damaged = [jar for jar in jars if not _is_intact(arrived / jar.file_name, jar)]
            if damaged:
                shutil.rmtree(work)  # so that the next attempt fetches it all anew
                names = ", ".join(jar.file_name for jar in damaged)
                raise FetchFailed(f"{names} arrived damaged (wrong checksum) and was thrown away: run the same again.")
            _put_in_place(arrived, folder)
            shutil.rmtree(work)

    def mongod(self) -> None:
        """Fetch the packaged mongod; pip verifies its checksum."""
        with locked(self._tools / ".mongod.lock"):
            if packaged_mongod(self._tools).is_file():
                return
            self._progress("mongod", 0, 1)
            arrived = self._tools / ".mongod.partial"
            shutil.rmtree(arrived, ignore_errors=True)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            command += ["--retries", "2"]
            command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(arrived)]
            command += ["--requirement", str(PINS / "mongod-requirements.txt")]
            output: list[bytes] = []
            code = self._run(command, output.append)
            if code != 0:
                raise _pip_failure(b"".join(output).decode(errors="replace"), code)
            if not os.access(arrived / MONGOD_IN_WHEEL, os.X_OK):
                raise FetchFailed(f"the package in {arrived} has no mongod that can be executed: run the same again.")
            _put_in_place(arrived, self._tools / "mongod")
            self._progress("mongod", 1, 1)

    def _run_ivy(self, work: Path, bundle: str, total: int) -> None:
        command = [str(self._java.executable), *_network_options(self._environment), f"-Duser.home={work}"]
        command += ["-cp", str(_pyspark_jars() / "*")]
        command += ["org.apache.ivy.Main", "-settings", str(work / "settings.xml"), "-ivy", str(work / "ivy.xml")]
        command += ["-confs", "default", "-retrieve", str(work / "jars" / "[artifact]-[revision].[ext]")]
        log = work / "ivy.log"
        arrived = 0
        self._progress(bundle, 0, total)
        with log.open("wb") as kept:

            def read(line: bytes) -> None:
                nonlocal arrived
                kept.write(line)
                if b"[SUCCESSFUL ]" in line:
                    arrived += 1
                    self._progress(bundle, arrived, total)

            code = self._run(command, read)
        if code != 0 or not (work / "jars").is_dir():
            raise _ivy_failure(bundle, log, code)
        self._progress(bundle, total, total)

    def _run(self, command: list[str], read: Callable[[bytes], object]) -> int:
        """Run a helper program, handing on its output line by line; returns its exit code."""
        with subprocess.Popen(
            command,
            env=helper_environment(self._environment, ("pip",)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as child:
            self._children.append(child)
            if self._cancelled:
                child.kill()
            assert child.stdout is not None
            for line in child.stdout:
                read(line)
        return child.returncode


def _is_intact(path: Path, jar: Jar) -> bool:
    return path.is_file() and _sha256(path) == jar.sha256


def _put_in_place(arrived: Path, folder: Path) -> None:
    if folder.exists():  # incomplete or of other versions: renaming it away first keeps the swap short
        outdated = folder.with_name(f".{folder.name}.outdated")
        shutil.rmtree(outdated, ignore_errors=True)
        folder.rename(outdated)
        arrived.rename(folder)
        shutil.rmtree(outdated)
    else:
        arrived.rename(folder)


def _write_ivy_files(work: Path, jars: list[Jar]) -> None:
    (work / "settings.xml").write_text(IVY_SETTINGS.format(cache=quoteattr(str(work / "cache"))), encoding="utf-8")
    dependencies = "\n".join(
        f'    <dependency org="{jar.organisation}" name="{jar.name}" rev="{jar.revision}" transitive="false"/>'
        for jar in jars
    )
    (work / "ivy.xml").write_text(
        '<ivy-module version="2.0">\n  <info organisation="tickhouse" module="tools"/>\n'
        '  <configurations><conf name="default"/></configurations>\n'
        f'  <dependencies defaultconf="default->default">\n{dependencies}\n  </dependencies>\n</ivy-module>\n',
        encoding="utf-8",
    )


def _ivy_failure(bundle: str, log: Path, code: int) -> FetchFailed:
    # Ivy names its client only when a connection fails; a file that the registry lacks is merely "not found".
    if "HttpClientHandler:" in log.read_text(encoding="utf-8", errors="replace"):
        return _NoAnswer(bundle)
    return FetchFailed(
        f"{bundle} cannot be fetched: Java ended {exit_status.told('java', code)}; {log} says more. "
        "Run the same again: what has arrived is kept."
    )


def _network_options(environment: Mapping[str, str]) -> Iterator[str]:
    """What Java does not take from the system by itself: added certificate authorities and the proxy."""
    if DEBIAN_TRUST_STORE.is_file():
        yield f"-Djavax.net.ssl.trustStore={DEBIAN_TRUST_STORE}"
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    address = next(filter(None, map(environment.get, names)), "")
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    if not proxy.hostname:
        return
    if proxy.scheme.startswith("socks"):
        yield f"-DsocksProxyHost={proxy.hostname}"
        yield f"-DsocksProxyPort={proxy.port or 1080}"
    else:
        yield f"-Dhttps.proxyHost={proxy.hostname}"
        yield f"-Dhttps.proxyPort={proxy.port or 80}"


def _pyspark_jars() -> Path:
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise FetchFailed("PySpark is not installed in this environment: run `make setup`.")
    return Path(spec.origin).parent / "jars"


def _pip_failure(output: str, code: int) -> FetchFailed:
    choices = "install MongoDB's server so that `mongod` is on PATH"
    if "No module named pip" in output:
        return FetchFailed(f"mongod cannot be fetched because this Python environment has no pip: {choices}.")
    if sysconfig.get_platform() != "linux-x86_64" or platform.libc_ver()[0] != "glibc":
        return FetchFailed(f"The packaged mongod is for Linux with glibc on x86-64 only: {choices}.")
    # What pip says when it found nothing; it does not tell that from a registry that did not answer.
    if "No matching distribution" in output or "Connection" in output or "timed out" in output:
        return _NoAnswer("mongod")
    last = output.strip().splitlines()[-1] if output.strip() else f"pip ended {exit_status.told('pip', code)}"
    return FetchFailed(f"mongod cannot be fetched ({last}): {choices}.")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time makes what the tools folder lacks: the others wait, and then find it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
