"""The accept rule against the reference on what hypothesis makes of its grammar, so that a difference is shrunk.

The same at scale, and by every route, is in `tests/integration/test_fuzz_validation.py`.
"""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batch_verdicts import batch_verdicts
from tests.reference import acceptance
from tests.reference.acceptance import SCRIPTS
from tickhouse.contract.validation import Rejection, accept

NOW = 1_746_677_558_300

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,12})?([eE][-+]?0{0,20}[0-9]{1,3})?", fullmatch=True)
NUMBERS_NEARLY = st.from_regex(r"[-+]?[0-9]{0,11}\.?[0-9]{0,9}([eE][-+]?[0-9]{0,3})?", fullmatch=True)
TIMES = st.from_regex(
    r"(00(00|01)|19(69|70)|20(00|24|25)|226[12]|9999)-(0[0-9]|1[0-3])-([0-2][0-9]|3[0-2])[Tt ]([01][0-9]|2[0-4])"
    r":[0-6][0-9]:[0-6][0-9]([.,][0-9]{0,10})?(Z|z|[-+]([01][0-9]|2[0-4]):?[0-6][0-9])?",
    fullmatch=True,
)
SYMBOLS = (
    st.from_regex(r"[A-Z0-9._-]{0,33}", fullmatch=True)
    | st.text(max_size=4)
    | st.text(
        st.one_of([st.characters(min_codepoint=first - 1, max_codepoint=last + 1) for first, last in SCRIPTS]),
        max_size=33,
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def literals(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Each text as a JSON string, with few or many escapes."""
    return st.builds(json.dumps, texts, ensure_ascii=st.booleans())


MEMBERS = st.tuples(
    literals(SYMBOLS).map(lambda value: ("symbol", value)),
    (NUMBERS | NUMBERS_NEARLY | literals(NUMBERS) | literals(NUMBERS_NEARLY)).map(lambda value: ("price", value)),
    literals(TIMES).map(lambda value: ("timestamp", value)),
)
EXTRAS = st.lists(st.tuples(st.sampled_from(["x", "", "price", "é"]), JSON.map(json.dumps)), max_size=2)
BLANKS = st.sampled_from(["", "", "", " ", "\t", "\n", "\r", "\v", "\u00a0"])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    members = draw(st.permutations([*draw(MEMBERS), *draw(EXTRAS)]))
    blank = draw(BLANKS)
    inside = ",".join(f"{json.dumps(name)}{blank}:{value}{blank}" for name, value in members)
    return f"{{{inside}}}{blank}".encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    value = draw(objects())
    at = draw(st.integers(0, len(value)))
    return value[:at] + draw(st.binary(max_size=3)) + value[at + draw(st.integers(0, 3)) :]


RECORD_TIMES = st.sampled_from([NOW, NOW, acceptance.LAST_MS, 0, -1, None]) | st.integers(-(2**63), 2**63 - 1)


@given(objects() | damaged(), st.none() | st.binary(max_size=8), st.sampled_from([True, True, False]), RECORD_TIMES)
@settings(max_examples=1_000, deadline=None)
def test_the_rule_its_batches_and_the_reference_agree(
    value: bytes, key: bytes | None, keyed: bool, record_timestamp: int | None
) -> None:
    key = acceptance.right_key(value) if keyed else key
    verdict = accept(key, value, record_timestamp)
    assert batch_verdicts([key] * 2, [value] * 2, [record_timestamp] * 2) == [verdict, verdict]
    try:
        tick = acceptance.accept(key, value, record_timestamp)
    except acceptance.Rejected:
        assert isinstance(verdict, Rejection)
        assert verdict.reason
    else:
        assert verdict == (tick.symbol, tick.units, tick.timestamp)
