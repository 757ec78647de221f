"""What an exit code means: the signal by name, or the code, with the likely cause and what to do."""

from __future__ import annotations

import signal

_SIGNALS = {
    "SIGKILL": "by hand, or by the kernel because memory ran out (`dmesg` says which)",
    "SIGILL": "this processor, or the virtual machine, lacks an instruction that the program uses",
    "SIGBUS": "a file could not be read or written: the disk is full, has failed or is gone",
    "SIGXFSZ": "a file became larger than the limit (`ulimit -f`)",
    "SIGXCPU": "the processor time that is allowed is used up (`ulimit -t`)",
    "SIGSYS": "a system call is not allowed here, by the container's seccomp profile for instance",
    **dict.fromkeys(
        ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGTRAP"), "a fault in the program, in a library of it or in the memory"
    ),
    **dict.fromkeys(("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"), "something else asked it to stop"),
}
_CODES = {
    126: "it may not be executed here: permissions, a file system mounted noexec, or another architecture",
    127: "it, or a library that it needs, is not there",
}
_OF_PROGRAMS: dict[tuple[str, str | int], str] = {
    ("mongod", "SIGILL"): (
        "mongod from version 5 on needs a processor with AVX, which this one, or the virtual machine, lacks: let the "
        "machine pass AVX on, or put a mongod 4.4 on PATH"
    ),
    ("mongod", 48): "its port is in use by another program",
    ("mongod", 62): "its files are of another version of mongod",
    ("mongod", 100): "it cannot use its files, of another version perhaps, or damaged",
    ("kafka", 3): "its heap of 512 MB ran out",
}
_SHELL = 128
"""What shells and containers add to the number of a signal."""


def told(name: str, code: int) -> str:
    """How a program ended, as the end of a sentence: "by SIGKILL: …" or "with exit code 48: …"."""
    number = -code if code < 0 else code - _SHELL
    if code < 0 or code > _SHELL:
        try:
            which = signal.Signals(number).name
        except ValueError:
            which = ""
        if which:
            cause = _OF_PROGRAMS.get((name, which)) or _SIGNALS.get(which)
            how = f"by {which}" if code < 0 else f"with exit code {code}, that of {which}"
            return f"{how}: {cause}" if cause else how
    if code < 0:
        return f"by signal {number}"
    cause = _OF_PROGRAMS.get((name, code)) or _CODES.get(code)
    return f"with exit code {code}: {cause}" if cause else f"with exit code {code}"
