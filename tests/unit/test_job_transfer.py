"""Who serves and who takes what from whom, as all ranks work it out alike."""

from __future__ import annotations

from hpcore.membership.roster import Member, Node, Roster
from hpcore.replicas import ReplicaGroup
from hpcore.transfer import (
    CHUNK_BYTES,
    MOST_SOURCES,
    Share,
    Way,
    out_of_reach,
    serving,
    shares,
)

SIZE = 64 * CHUNK_BYTES + 17


def roster(nodes: list[int], racks: tuple[str, ...] = ()) -> Roster:
    """Rank r is in slot r + 10."""
    members = tuple(Member(r, r + 10, r, 100 + r, node) for r, node in enumerate(nodes))
    named = tuple(Node(number, rack=rack) for number, rack in enumerate(racks))
    return Roster(2, "job", 5, members, nodes=named)


def group(world: int, receivers: tuple[int, ...]) -> ReplicaGroup:
    ranks = tuple(range(world))
    sources = tuple(rank + 10 for rank in ranks if rank not in receivers)
    return ReplicaGroup("", ranks, sources, tuple(rank + 10 for rank in receivers))


def taken(found: list[Share]) -> dict[int, int]:
    """Bytes by index of the source; checks that nothing is left out."""
    total: dict[int, int] = {}
    at = 0
    for source, begin, end in found:
        assert begin == at
        total[source], at = total.get(source, 0) + end - begin, end
    assert at == SIZE
    return total


def plan(
    where: Roster,
    part: ReplicaGroup,
    own: int,
    able: list[bool] | None = None,
    forced: bool = False,
) -> list[Share]:
    return shares(where, part, own, SIZE, able or [True] * len(part.sources), {}, forced)


def test_all_sources_of_a_node_serve_at_once() -> None:
    found = taken(plan(roster([0] * 4), group(4, (1,)), 11))
    assert set(found) == {0, 1, 2}
    assert max(found.values()) - min(found.values()) <= 2 * CHUNK_BYTES


def test_first_block_is_not_read_from_the_one_that_digests_it() -> None:
    found = plan(roster([0] * 3), group(3, (1,)), 11)
    assert found[0][0] == 1


def test_several_lost_ranks_load_the_sources_alike() -> None:
    where, part = roster([0] * 6), group(6, (0, 3))
    load: dict[int, int] = {}
    for own in (10, 13):
        for source, count in taken(plan(where, part, own)).items():
            load[source] = load.get(source, 0) + count
    assert set(load) == {0, 1, 2, 3}
    assert max(load.values()) - min(load.values()) <= 4 * CHUNK_BYTES


def test_near_sources_come_first() -> None:
    where = roster([0, 0, 1, 1], racks=("a", "b"))
    found = taken(plan(where, group(4, (0,)), 10))
    assert found[0] > 0.8 * SIZE


def test_what_cannot_be_read_is_not_planned() -> None:
    found = taken(plan(roster([0, 1, 1]), group(3, (0,)), 10, able=[False, True]))
    assert set(found) == {1}


def test_forced_ranks_are_all_equally_far() -> None:
    found = taken(plan(roster([0, 0, 0]), group(3, (0,)), 10, forced=True))
    assert max(found.values()) - min(found.values()) <= 2 * CHUNK_BYTES


def test_too_many_sources_are_cut_to_the_near_ones() -> None:
    nodes = [rank // 100 for rank in range(300)]
    part = group(300, (250,))
    chosen = serving(roster(nodes), part, False)
    assert len(chosen) == MOST_SOURCES
    assert {nodes[slot - 10] for slot in chosen} == {2}
    assert list(chosen) == sorted(chosen)
    few = group(3, (0,))
    assert serving(roster([0, 1, 1]), few, False) == few.sources


def test_receiver_without_a_way_is_told_with_the_reason() -> None:
    where, part = roster([0, 1]), group(2, (1,))
    ways = {0: Way("tcp"), 1: Way(why_not="no libfabric found")}
    told = out_of_reach(where, [part], ways, False)
    assert "rank 1 on node 1 can read none of its sources, ranks [0]" in told
    assert "no libfabric found" in told
    assert "provider efa" in out_of_reach(where, [part], {0: Way("efa"), 1: Way("tcp")}, False)
    assert out_of_reach(where, [part], {0: Way("tcp"), 1: Way("tcp")}, False) == ""
    assert out_of_reach(roster([0, 0]), [part], {0: Way(), 1: Way()}, False) == ""


def test_roster_carries_nodes() -> None:
    where = roster([0, 1, 2], racks=("a", "a", ""))
    assert Roster.from_bytes(where.to_bytes()) == where
    labels = where.racks()
    assert labels[0] == labels[1] != labels[2]
