"""What the accept rule and the reference say of fuzzed messages, on whatever Python runs this.

    python -m tests.verdicts SEED COUNT

Prints a digest of the rule's verdicts, with their reasons; fails with the first message about which the reference says
otherwise. Only the standard library is needed, and no more than Python 3.11.0 has.
"""

from __future__ import annotations

import hashlib
import sys

from tests.reference import acceptance
from tests.reference.fuzz import fuzz
from tickhouse.contract.validation import Tick, accept


def digest(seed: int, count: int) -> str:
    """Of the verdicts. Raises AssertionError."""
    found = hashlib.sha256()
    for message in fuzz(seed, count):
        verdict = accept(*message)
        try:
            tick = acceptance.accept(*message)
        except acceptance.Rejected as rejected:
            agreed = not isinstance(verdict, Tick)
            told = str(rejected)
        else:
            agreed = verdict == (tick.symbol, tick.units, tick.timestamp)
            told = str(tick)
        assert agreed, f"{str(message)[:2_000]}: {verdict}, but the reference says: {told}"
        assert "internal" not in str(verdict), verdict
        found.update(repr(tuple(verdict)).encode())
    return found.hexdigest()


if __name__ == "__main__":
    print(digest(int(sys.argv[1]), int(sys.argv[2])))
