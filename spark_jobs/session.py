"""The Spark session of a stream job and its settings."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from spark_jobs.settings import StreamSettings, as_spark_reads
from tickhouse import environment
from tickhouse.errors import NonRetryableError

_LOGGING = Path(__file__).with_name("log4j2.properties")
_LAUNCHER = Path(__file__).with_name("launcher")
_PROJECT = Path(__file__).resolve().parents[1]


# Few cores are shared by several JVMs with small heaps: the serial collector costs least, and optimising what runs for
# milliseconds a second never pays back what it takes.
_JVM_OPTIONS = f"-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss4m -Dlog4j2.configurationFile={_LOGGING.as_uri()}"


class MissingPart(NonRetryableError):
    """Something that a job needs is not there; the message says what to do."""


def build_session(name: str, settings: StreamSettings, further: Mapping[str, str] | None = None) -> SparkSession:
    """Start Spark for the job `name`, with `further` settings of Spark beside those of all jobs.

    Raises MissingPart when the JARs are not there.
    """
    jars = sorted(settings.jars.absolute().glob("*.jar"))
    if not jars:
        raise MissingPart(
            f"no JARs in {settings.jars}: fetch them with `make setup`, or name their folder in TICKHOUSE_JARS"
        )
    _prepare_environment(name, settings)
    conf = SparkConf().setAppName(f"tickhouse-{name}").setMaster(settings.spark_master)
    conf.setAll(list((_options(settings, jars) | dict(further or {})).items()))
    gateway = launch_gateway(conf)  # type: ignore[no-untyped-call]
    if not environment.user_has_a_name():
        _give_the_user_a_name(gateway)
    SparkContext(conf=conf, gateway=gateway)
    return SparkSession.builder.getOrCreate()


def _prepare_environment(name: str, settings: StreamSettings) -> None:
    """Make the environment of this process that of Spark's: Spark hands on all there is to Java and to its workers."""
    given = dict(os.environ)
    scratch = environment.scratch_folder(settings.home.absolute(), name)
    needs: tuple[environment.Need, ...] = ()
    if environment.in_the_cloud(settings.lakehouse_uri, settings.checkpoints_uri):
        needs = ("cloud",)
    variables = environment.child_environment(given, scratch, environment.find_account(given, scratch), needs)
    os.environ.clear()
    os.environ.update(variables)
    # The search path is this interpreter's own decision by now; for its workers it is to have been the same.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_PROJECT), *filter(None, [variables.get("PYTHONPATH")])])
    spark_home = Path(pyspark.__file__).parent
    os.environ["SPARK_HOME"] = str(spark_home)
    # It is on Java's class path, where class data sharing allows no folder that has anything in it: pip's has none.
    os.environ["SPARK_CONF_DIR"] = str(settings.spark_conf_dir or spark_home / "conf")
    # Workers must run this environment's interpreter, not the system's.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if settings.spark_master.startswith("local"):
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    _use_lean_java()


def _give_the_user_a_name(gateway: Any) -> None:
    """Tell Hadoop who runs this: it fails where the system has no name for the user, as in some containers."""
    users = gateway.jvm.org.apache.hadoop.security.UserGroupInformation
    users.setLoginUser(users.createRemoteUser(os.environ["USER"]))


def _use_lean_java() -> None:
    """Make Spark start on a Java runtime that was built without a module which Spark always asks for."""
    home = os.environ.get("JAVA_HOME", "")
    release = Path(home, "release")
    # Where a runtime says nothing of its modules it is taken to be whole.
    modules = re.search(r'^MODULES="(.*)"', release.read_text(), re.MULTILINE) if home and release.is_file() else None
    if modules and "jdk.incubator.vector" not in modules[1].split():
        os.environ["TICKHOUSE_JAVA"] = str(Path(home, "bin", "java"))
        os.environ["JAVA_HOME"] = str(_LAUNCHER)


def _java_options(settings: StreamSettings) -> str:
    # Java takes neither from the environment: it unpacks native libraries in the system's folder, where they may not be
    # executed, and has no home for a user whom the system does not know.
    folders = (f"-Djava.io.tmpdir={os.environ['TMPDIR']}", f"-Duser.home={os.environ['HOME']}")
    return f"{_JVM_OPTIONS} {as_spark_reads(folders)} {settings.driver_java_options}".strip()


def _options(settings: StreamSettings, jars: list[Path]) -> dict[str, str]:
    local = settings.spark_master.startswith("local")
    class_path = os.pathsep.join(map(str, jars))
    options = {
        "spark.driver.extraClassPath": class_path,
        "spark.driver.memory": settings.driver_memory,
        "spark.driver.extraJavaOptions": _java_options(settings),
        "spark.local.dir": os.environ["TMPDIR"],
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # The plan of every micro-batch is described for a page that nobody sees.
        "spark.sql.ui.explainMode": "simple",
        # Plans are part of error messages, and a reader's options are part of plans; its password is in one of them.
        "spark.sql.redaction.options.regex": "(?i)url|password|jaas",
        "spark.redaction.regex": "(?i)secret|password|token|access[.]?key|jaas",
        # Of a query that has not started yet the plan shows the options as one text.
        "spark.sql.redaction.string.regex": r'password="(?:[^"\\]|\\.)*"',
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(settings.state_partitions),
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.streaming.stateStore.providerClass": (
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
        ),
        # A micro-batch then uploads what it changed, not whole files.
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        "spark.sql.streaming.stateStore.rocksdb.boundedMemoryUsage": "true",
        "spark.sql.streaming.stateStore.rocksdb.maxMemoryUsageMB": "128",
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        "spark.sql.streaming.stopTimeout": "30s",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "20000",
        "spark.python.daemon.module": "spark_jobs.python_daemon",
        # A task of a micro-batch has two Python workers at once, in a row. They take turns: with no more of them each
        # has the same part every time, and the one that publishes goes on in its session with the brokers.
        "spark.python.factory.idleWorkerMaxPoolSize": str(2 * settings.state_partitions),
        # Else it is true for some kinds of tasks, each of which then has a daemon and workers of its own.
        "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "false",
    }
    if local:
        options |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            # Hadoop's own local file system starts a process for each small file to set its permissions.
            "spark.hadoop.fs.file.impl": "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem",
            "spark.sql.streaming.checkpointFileManagerClass": (
                "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
            ),
        }
    else:
        options["spark.jars"] = ",".join(map(str, jars))
    return options
