"""Replica groups: who gives state to whom, as a pure function of the roster and the parts held."""

from __future__ import annotations

import pytest

from hpcore.membership.roster import Member, Roster
from hpcore.replicas import replica_groups


def roster(steps: int, sources: list[int], receivers: list[int]) -> Roster:
    """Rank r is in slot r + 10."""
    members = tuple(Member(rank, rank + 10, rank, 100 + rank) for rank in range(4))
    return Roster(
        2,
        "job",
        steps,
        members,
        tuple(slot + 10 for slot in receivers),
        tuple(slot + 10 for slot in sources),
    )


def test_replicas_are_those_who_hold_the_same_part() -> None:
    groups = replica_groups(roster(5, [0, 2, 3], [1]), ["a", "b", "a", "b"], [True] * 4)
    assert [group.ranks for group in groups] == [(0, 2), (1, 3)]
    assert [(group.sources, group.receivers) for group in groups] == [
        ((10, 12), ()),
        ((13,), (11,)),
    ]
    assert not any(group.lost or group.made for group in groups)


def test_part_without_a_holder_is_lost_once_there_was_a_step() -> None:
    one = roster(5, [0, 2], [1, 3])
    groups = replica_groups(one, ["a", "b", "a", "b"], [True] * 4)
    assert [group.lost for group in groups] == [False, True]


@pytest.mark.parametrize(
    ("pristine", "source"), [([True] * 4, 11), ([True, False, True, True], 13)]
)
def test_before_the_first_step_the_first_that_built_its_rank_gives(
    pristine: list[bool], source: int
) -> None:
    groups = replica_groups(roster(0, [0], [1, 2, 3]), ["a", "b", "a", "b"], pristine)
    assert [(group.sources, group.receivers, group.made) for group in groups] == [
        ((10,), (12,), False),
        ((source,), (24 - source,), True),
    ]


def test_before_the_first_step_what_another_rank_built_is_of_no_use() -> None:
    groups = replica_groups(roster(0, [0, 1, 2], [3]), ["a", "b", "c", "d"], [True] * 3 + [False])
    assert [group.lost for group in groups] == [False, False, False, True]
