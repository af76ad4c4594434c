"""Rosters: what goes over the notice board comes back the same."""

from __future__ import annotations

import pytest

from hpcore.errors import InvalidArgument
from hpcore.membership.roster import Member, Roster


def make_roster() -> Roster:
    members = (Member(1, 0, 7, 101), Member(0, 4, 9, 104), Member(2, 2, 8, 102))
    return Roster(
        3,
        "job",
        12,
        members,
        receivers=(4,),
        sources=(0, 2),
        reason="death",
        detected_ns=5,
        decided_ns=6,
    )


def test_roster_survives_bytes() -> None:
    roster = make_roster()
    assert Roster.from_bytes(roster.to_bytes()) == roster


def test_roster_orders_by_rank() -> None:
    roster = make_roster()
    assert roster.slots == [4, 0, 2]
    assert roster.world_size == 3
    assert roster.rank_of(0) == 1
    assert roster.rank_of(3) is None
    assert roster.member_of(2) == Member(2, 2, 8, 102)
    assert roster.member_of(5) is None


@pytest.mark.parametrize("ranks", [(0, 2), (0, 0), (1, 2)])
def test_roster_rejects_ranks_with_gaps(ranks: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match="ranks"):
        Roster(1, "job", 0, tuple(Member(rank, slot, 1, 1) for slot, rank in enumerate(ranks)))


def test_roster_rejects_slot_named_twice() -> None:
    with pytest.raises(InvalidArgument, match="twice"):
        Roster(1, "job", 0, (Member(0, 1, 1, 1), Member(1, 1, 2, 2)))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"members":[{"rank":0}]}', b'{"members":[],"x":1}']
)
def test_roster_rejects_other_bytes(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        Roster.from_bytes(data)
