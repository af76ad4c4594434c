"""Replica groups: who gives state to whom, as a pure function of the roster and the parts held."""

from __future__ import annotations

import pytest

from hpcore.membership.roster import Member, Roster
from hpcore.replicas import HealPlan, RankFacts, plan_heal


def roster(steps: int) -> Roster:
    """Rank r is in slot r + 10."""
    members = tuple(Member(rank, rank + 10, rank, 100 + rank) for rank in range(4))
    return Roster(2, "job", steps, members)


def plan(
    steps: int,
    parts: str,
    held: list[int | None],
    shadows: list[tuple[int, ...]] | None = None,
    pristine: list[bool] | None = None,
) -> HealPlan:
    copies = shadows or [()] * 4
    made = pristine or [True] * 4
    facts = [RankFacts(parts[r], made[r], held[r], copies[r]) for r in range(4)]
    return plan_heal(roster(steps), facts)


def test_replicas_are_those_who_hold_the_same_part() -> None:
    found = plan(5, "abab", [5, None, 5, 5])
    assert [group.ranks for group in found.groups] == [(0, 2), (1, 3)]
    assert [(g.sources, g.receivers) for g in found.groups] == [((10, 12), ()), ((13,), (11,))]
    assert (found.step, found.tier, found.lost) == (5, "peer", ())


def test_part_without_a_holder_or_a_copy_is_lost() -> None:
    found = plan(5, "abab", [5, None, 5, None])
    assert (found.groups, found.lost, found.step) == ((), ((1, 3),), 5)


@pytest.mark.parametrize(
    ("pristine", "source"), [([True] * 4, 11), ([True, False, True, True], 13)]
)
def test_before_the_first_step_the_first_that_built_its_rank_gives(
    pristine: list[bool], source: int
) -> None:
    found = plan(0, "abab", [0, None, None, None], pristine=pristine)
    assert [(g.sources, g.receivers, g.made) for g in found.groups] == [
        ((10,), (12,), False),
        ((source,), (24 - source,), True),
    ]


def test_before_the_first_step_what_another_rank_built_is_of_no_use() -> None:
    found = plan(0, "abcd", [0, 0, 0, None], pristine=[True] * 3 + [False])
    assert found.lost == ((3,),)


def test_copy_of_the_newest_step_serves_the_lost_rank_alone() -> None:
    found = plan(7, "abcd", [7, 7, None, 7], [(6, 7)] * 4)
    assert (found.step, found.tier) == (7, "shadow")
    assert [group.shadow_for(12) for group in found.groups] == [None, None, 2, None]
    assert [group.shadows for group in found.groups] == [(), (), ((12, 2),), ()]


def test_all_go_back_to_the_newest_step_that_all_can_have() -> None:
    found = plan(7, "abcd", [7, 7, None, 7], [(6, 7), (4, 6), (4, 6), (6, 7)])
    assert (found.step, found.newest) == (6, 7)
    assert [group.shadow_for(10 + r) for r, group in enumerate(found.groups)] == [0, 1, 2, 3]


def test_copy_of_a_replica_serves_too() -> None:
    found = plan(7, "abab", [7, None, 7, None], [(7,), (), (7,), (7,)])
    assert found.groups[1].shadows == ((11, 3), (13, 3))


def test_rank_that_went_back_already_waits_for_the_others() -> None:
    """A second fault in the middle of going back: rank 0 is at step 6, rank 2 is gone again."""
    found = plan(7, "abcd", [6, 7, None, 7], [(4, 6), (6, 7), (4, 6), (6, 7)])
    assert found.step == 6
    assert [group.shadow_for(10 + r) for r, group in enumerate(found.groups)] == [None, 1, 2, 3]


def test_copies_of_a_given_up_past_are_not_gone_forward_to() -> None:
    found = plan(9, "abcd", [6, 6, None, 6], [(6, 7)] * 4)
    assert found.step == 6
