"""Plain-value trees: taken apart, sent, put back; no pickle."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcore.errors import CorruptData, Unsupported
from hpcore.plain import Collector, decode, encode, join, split, write_back

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
keys = st.text() | st.integers() | st.binary() | st.tuples(st.integers(), st.text())
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(keys, inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["!", "!v", "a"]), inner)
    ),
)


@given(trees)
def test_tree_survives_encoding(value: object) -> None:
    assert decode(encode(split(value, "x", Collector()))) == value


def test_tree_keeps_types_and_bits() -> None:
    value = [
        OrderedDict(b=1, a=2),
        Counter("aab"),
        deque([1, 2], 5),
        {1, 2},
        frozenset([3]),
        1 + 2j,
    ]
    value += [-0.0, math.inf, 5e-324, b"\x00\xff"]
    again = decode(encode(split(value, "x", Collector())))
    assert again == value and [type(v) for v in again] == [type(v) for v in value]
    assert again[2].maxlen == 5 and math.copysign(1, again[6]) == -1
    assert math.isnan(decode(encode(math.nan)))


def test_tree_shares_nothing_with_its_state() -> None:
    state = {"short": [1], "long": list(range(100)), "nested": {"set": {1}}}
    tree = split(state, "x", Collector())
    state["short"].append(2)
    state["long"].append(2)
    state["nested"]["set"].add(2)
    assert tree == {"short": [1], "long": list(range(100)), "nested": {"set": {1}}}


def test_tensors_are_taken_out_and_tied_ones_once() -> None:
    into, tensor = Collector(), torch.arange(3)
    tree = split({"a": tensor, "b": [tensor], "c": torch.zeros(1)}, "state", into)
    assert into.names == ["state.a", "state.c"]
    again = join(decode(encode(tree)), into.tensors)
    assert again["a"] is tensor and again["b"][0] is tensor


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, object()]}, r"x\.a\[1\] is a builtins.object"),
        ({"f": len}, r"x\.f is a builtins.builtin_function"),
        ({(1, (2,)): 1}, r"x has the key \(1, \(2,\)\)"),
        ([1] * 50 + [object()], r"x\[50\]"),
    ],
)
def test_tree_refuses_by_name(value: object, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        split(value, "x", Collector())


def test_decode_refuses_what_is_no_tree() -> None:
    for text in (b"{", b'{"!": "what", "v": 1}', b'{"!": "b"}'):
        with pytest.raises(CorruptData):
            decode(text)


def test_write_back_keeps_the_objects_of_the_script() -> None:
    inner: list[int] = [1, 2, 3]
    state = {"list": inner, "dict": {"a": 1}, "gone": 1}
    nested = state["dict"]
    write_back(state, {"list": [9], "dict": {"b": 2}, "new": 5})
    assert state == {"list": [9], "dict": {"b": 2}, "new": 5}
    assert state["list"] is inner and state["dict"] is nested
