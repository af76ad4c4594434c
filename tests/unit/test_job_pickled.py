"""What plain values cannot carry is refused by name; pickle carries it where the user asks."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import hpcore
from hpcore.errors import InvalidArgument, Unsupported
from hpcore.tracked import TrackedState, capture

pytestmark = pytest.mark.torch


class Odometer:
    def __init__(self) -> None:
        self.driven: Any = range(3)


def test_value_that_is_not_plain_is_refused_by_name() -> None:
    state = TrackedState()
    with pytest.raises(Unsupported, match=r"box\.trip is a builtins\.range"):
        state.add("box", {"trip": range(3)})
    with pytest.raises(Unsupported, match=r"odometer is a .*Odometer"):
        state.add("odometer", Odometer())


def test_pickled_object_is_restored_in_place() -> None:
    holder, state = Odometer(), TrackedState()
    state.add("odometer", hpcore.Pickled(holder))
    before = capture(state.fluid)
    holder.driven, holder.more = range(9), 1  # type: ignore[attr-defined]
    state.fluid[0].restore(before.trees[0], before.tensors)
    assert vars(holder) == {"driven": range(3)}


def test_pickle_is_refused_where_it_cannot_restore() -> None:
    with pytest.raises(InvalidArgument, match="a range has no __dict__"):
        hpcore.Pickled(range(3))
    holder = Odometer()
    holder.driven = lambda: 0
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        hpcore.Pickled(holder)
