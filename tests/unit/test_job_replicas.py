"""Replica groups: who gives state to whom, as a pure function of the roster and the parts held."""

from __future__ import annotations

import pytest

from hpcore.membership.neighbours import keeper_of, keeping
from hpcore.membership.roster import Member, Node, Roster
from hpcore.neighbour import with_copies
from hpcore.replicas import Copy, HealPlan, RankFacts, plan_heal


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


def copied(found: HealPlan) -> list[int | None]:
    """By rank: whose shadow copy it takes."""
    copies = [found.group_of(rank).shadow_for(rank + 10) for rank in range(4)]
    return [None if copy is None else copy.rank for copy in copies]


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
    assert [group.shadows for group in found.groups] == [(), (), (Copy(12, 2, 2),), ()]


def test_all_go_back_to_the_newest_step_that_all_can_have() -> None:
    found = plan(7, "abcd", [7, 7, None, 7], [(6, 7), (4, 6), (4, 6), (6, 7)])
    assert (found.step, found.newest) == (6, 7)
    assert copied(found) == [0, 1, 2, 3]


def test_copy_of_a_replica_serves_too() -> None:
    found = plan(7, "abab", [7, None, 7, None], [(7,), (), (7,), (7,)])
    assert found.groups[1].shadows == (Copy(11, 3, 3), Copy(13, 3, 3))


def test_rank_that_went_back_already_waits_for_the_others() -> None:
    """A second fault in the middle of going back: rank 0 is at step 6, rank 2 is gone again."""
    found = plan(7, "abcd", [6, 7, None, 7], [(4, 6), (6, 7), (4, 6), (6, 7)])
    assert found.step == 6
    assert copied(found) == [None, 1, 2, 3]


def test_copies_of_a_given_up_past_are_not_gone_forward_to() -> None:
    found = plan(9, "abcd", [6, 6, None, 6], [(6, 7)] * 4)
    assert found.step == 6


# --- copies on other nodes --------------------------------------------------------------------


def on_nodes(*racks: str) -> Roster:
    """One rank a node."""
    members = tuple(Member(r, r + 10, r, 100 + r, r) for r in range(4))
    nodes = tuple(Node(n, f"host{n}", rack, f"k{n}") for n, rack in enumerate(racks))
    return Roster(2, "job", 7, members, nodes=nodes)


def told(steps: list[int], kept: list[list[int]], era: int = 0) -> dict[str, object]:
    return {"steps": steps, "kept": kept, "era": era}


def test_lost_rank_takes_the_copy_on_its_neighbour() -> None:
    where = on_nodes("", "", "", "")
    facts = [
        RankFacts(part, True, held) for part, held in zip("abcd", [7, None, 7, 7], strict=True)
    ]
    said = [told([7], [[3, 7]]), told([], []), told([7], [[1, 6], [1, 7]]), told([7], [])]
    found = plan_heal(where, with_copies(where, facts, said))
    assert (found.step, found.groups[1].shadows) == (7, (Copy(11, 1, 2),))


def test_copy_on_the_own_node_is_nearer_than_one_elsewhere() -> None:
    where = on_nodes("", "", "", "")
    facts = [RankFacts("a", True, None) for _ in range(4)]
    said = [told([], []), told([7], []), told([], [[0, 7]]), told([], [])]
    found = plan_heal(where, with_copies(where, facts, said))
    assert found.groups[0].shadow_for(11) == Copy(11, 1, 1)
    assert found.groups[0].shadow_for(12) == Copy(12, 0, 2)
    assert found.groups[0].shadow_for(10) == Copy(10, 0, 2)


def test_copies_of_a_node_that_missed_a_rewind_do_not_count() -> None:
    where = on_nodes("", "", "", "")
    facts = [
        RankFacts(part, True, held) for part, held in zip("abcd", [7, None, 7, 7], strict=True)
    ]
    said = [told([6], [], 2), told([], [], 2), told([6], [[1, 7]], 1), told([6], [[1, 6]], 2)]
    counted = with_copies(where, facts, said)
    assert counted[2].kept == () and counted[3].kept == ((1, 6),)


def test_neighbour_is_the_next_node_of_another_rack() -> None:
    names = [keeper_of(on_nodes("a", "a", "b", "b"), n) for n in range(4)]
    assert [node and node.number for node in names] == [2, 2, 0, 0]
    names = [keeper_of(on_nodes("", "", "", ""), n) for n in range(4)]
    assert [node and node.number for node in names] == [1, 2, 3, 0]
    task = keeping(on_nodes("a", "a", "b", "b"), 2)
    assert (task.ranks, task.kept_by) == ((2,), "k0")
    assert task.keeps == (("k0", (0,)), ("k1", (1,)))
    assert keeper_of(on_nodes(), 0) is None
