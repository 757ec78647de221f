"""The reader of outermost members against Python's own, and where Python's gives up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickhouse.contract.strict_json import Member, NotJson, object_members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


class Number(str):
    """A number as written."""


def by_python(text: str) -> list[Member] | None:
    """The same by Python's reader."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    pairs = json.JSONDecoder(
        object_pairs_hook=lambda members: ("object", members),
        parse_int=Number,
        parse_float=Number,
        parse_constant=refuse,
    ).decode(text)
    if not isinstance(pairs, tuple):
        return None
    return [
        Member(name, *((None, str(value)) if isinstance(value, Number) else (value, None)))
        if isinstance(value, str)
        else Member(name, None, None)
        for name, value in pairs[1]
    ]


@given(VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]), st.data())
def test_it_reads_what_python_reads(
    value: object, ascii_only: bool, indent: int | str | None, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert object_members(text) == by_python(text)
    at = data.draw(st.integers(0, len(text)))
    broken = text[:at] + data.draw(
        st.sampled_from(['"', "\\", ",", ":", "{", "}", "[", "]", "0", ".", "e", "\0", "x", ""])
    )
    broken += text[at + data.draw(st.integers(0, 2)) :]
    try:
        expected = by_python(broken)
    except ValueError:
        with pytest.raises(NotJson):
            object_members(broken)
    else:
        assert object_members(broken) == expected


def test_members_come_in_order_repeated_and_nested_ones_included() -> None:
    assert object_members(' {"a":"\\u0041","b":1.50e+3,"a":{"a":[1,{}]},"":true}\n') == [
        Member("a", "A", None),
        Member("b", None, "1.50e+3"),
        Member("a", None, None),
        Member("", None, None),
    ]


@pytest.mark.parametrize("text", ["[]", '[{"a":1}]', '"a"', "-0.5e7", "null"])
def test_what_is_not_an_object_has_none(text: str) -> None:
    assert object_members(text) is None


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}"), ('[0,{"a":[],"b":', "}]")])
def test_any_depth_is_read(opening: str, closing: str) -> None:
    deep = opening * 200_000 + "0" + closing * 200_000
    assert object_members(f'{{"a":{deep}}}') == [Member("a", None, None)]
    with pytest.raises(NotJson):
        object_members(f'{{"a":{deep[:-1]}}}')
