"""A machine on which everything that can be set is set against whoever starts a stack, all of it at once.

Variables of other projects, modules with the names of ours, a folder for temporary files in which nothing may be
executed, a user without a name or a home, an installation that this user cannot write to, ignored signals, few files.
What needs root is left out where the tests have not got it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

_USER = 12_345  # nobody
_MODULES = (
    "producer", "spark_jobs", "kafka", "confluent_kafka", "numpy", "pandas", "pyarrow", "pymongo", "dagster", "dash",
    "psutil", "requests", "typing_extensions", "pyspark", "grpc", "yaml", "json", "logging", "tests",
)  # fmt: skip
_NOISE = """
import os, pathlib
pathlib.Path(os.environ.get("TICKHOUSE_STRANGERS", "/nowhere"), __name__.partition(".")[0]).touch()
raise SystemExit(f"a stranger's {__name__} ran")
"""
_BEGIN = """
if [ -n "$1" ]; then
    mount --make-rprivate / && mount --rbind /tmp /tmp && mount -o remount,bind,noexec /tmp || exit 9
fi
umask 000
trap "" HUP INT
ulimit -n 2048
cd "$2" || exit 9
shift 2
exec "$@"
"""


class Hostile:
    """Such a machine. `home` is a folder outside /tmp that the user may write to, `folder` one for what is strange."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self._notes = folder / "notes"
        self._notes.mkdir(mode=0o777)
        self._notes.chmod(0o777)
        current = folder / "current"
        current.mkdir()
        for module in _MODULES:
            (current / f"{module}.py").write_text(_NOISE)
        (current / ".env").write_text("TICKHOUSE_SYMBOLS=STRANGE\nTICKHOUSE_KAFKA_BOOTSTRAP=192.0.2.1:9\n")
        (current / "java").write_text("#!/bin/sh\nexit 9\n")
        (current / "java").chmod(0o755)
        (current / "dirname").symlink_to("java")
        settings = folder / "settings"
        settings.mkdir()
        (settings / "spark-defaults.conf").write_text("spark.eventLog.enabled true\nspark.eventLog.dir /nowhere\n")
        (settings / "spark-env.sh").write_text("exit 9\n")
        (settings / "core-site.xml").write_text(
            "<configuration><property><name>fs.defaultFS</name><value>hdfs://nowhere:9</value></property></configuration>"
        )
        self._current = current
        root = os.geteuid() == 0 and shutil.which("unshare") is not None and shutil.which("setpriv") is not None
        self._mounts = root and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
        self._nameless = root
        if root:
            os.chown(home, _USER, _USER)
        proxy = "http://127.0.0.1:9"
        self.environment = {
            "PATH": f":.:{os.environ['PATH']}",
            "PYTHONPATH": str(current), "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "PYTHONUTF8": "0",
            "PYTHONIOENCODING": "latin-1", "PYTHONUSERBASE": str(current), "PYTHONSTARTUP": "/nowhere",
            "http_proxy": proxy, "https_proxy": proxy, "all_proxy": proxy, "grpc_proxy": proxy, "no_proxy": "",
            "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "GRPC_PROXY": proxy, "NO_PROXY": "",
            "PYSPARK_SUBMIT_ARGS": "--nonsense", "PYSPARK_PYTHON": "/nowhere", "PYSPARK_DRIVER_PYTHON": "/nowhere",
            "SPARK_CONF_DIR": str(settings), "SPARK_HOME": "/nowhere", "SPARK_LOCAL_IP": "192.0.2.1",
            "SPARK_LOCAL_DIRS": "/nowhere", "SPARK_SUBMIT_OPTS": "-nonsense", "SPARK_LAUNCHER_OPTS": "-nonsense",
            "HADOOP_CONF_DIR": str(settings), "HADOOP_HOME": "/nowhere", "HADOOP_USER_NAME": "hdfs",
            "JAVA_TOOL_OPTIONS": "-nonsense", "_JAVA_OPTIONS": "-Xmx2m", "JDK_JAVA_OPTIONS": "-nonsense",
            "JAVA_HOME": "/nowhere", "CLASSPATH": "/nowhere", "KAFKA_OPTS": "-nonsense",
            "LD_PRELOAD": "/nowhere.so", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "64", "OPENBLAS_NUM_THREADS": "64",
            "OPENSSL_CONF": "/nowhere", "BASH_ENV": str(settings / "spark-env.sh"), "TMPDIR": "/nowhere",
            "TZ": "Mars/Phobos", "LANG": "tr_TR.UTF-8", "LC_ALL": "ja_JP.SJIS", "MPLCONFIGDIR": "/nowhere",
            "DAGSTER_HOME": "/nowhere", "MONGO_URI": "mongodb://nowhere", "AWS_ENDPOINT_URL": "http://nowhere",
            "TICKHOUSE_STRANGERS": str(self._notes),
        }  # fmt: skip

    @property
    def prefix(self) -> list[str]:
        """The command that becomes the one that stands behind it, on this machine."""
        words = ["sh", "-c", _BEGIN, "sh", "yes" if self._mounts else "", str(self._current)]
        words = ["unshare", "--mount", *words] if self._mounts else words
        if self._nameless:
            # It may read everything, as the tests' Python may be in a folder of root's, and write nothing of others.
            may = "+dac_read_search"
            words += ["env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", "setpriv", f"--reuid={_USER}"]
            words += [f"--regid={_USER}", "--clear-groups", f"--inh-caps={may}", f"--ambient-caps={may}"]
        return words

    def disturb(self, process: subprocess.Popen[str]) -> None:
        """Send what the process was started to ignore, as `nohup` does and a script that starts it by `&`."""
        for number in (signal.SIGHUP, signal.SIGINT):
            process.send_signal(number)
        time.sleep(1)
        assert process.poll() is None

    def strangers_that_ran(self) -> list[str]:
        """The modules of others that were run."""
        return sorted(path.name for path in self._notes.iterdir())
