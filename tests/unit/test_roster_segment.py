"""The node segment within one process: notice board, rank blobs, faults, bad input."""

from __future__ import annotations

import os

import pytest

from hpcore import _core
from hpcore.errors import InvalidArgument, NotFound, OutOfSpace


def segment(slots: int = 2) -> _core.NodeSegment:
    return _core.NodeSegment.create(slots, staging_bytes=4096, store_bytes=4096)


def test_segment_refuses_impossible_sizes() -> None:
    for slots in (0, 65):
        with pytest.raises(InvalidArgument, match=str(slots)):
            _core.NodeSegment.create(slots)


def test_segment_attach_refuses_other_files() -> None:
    fd = os.memfd_create("other")
    os.ftruncate(fd, 1 << 20)
    with pytest.raises(InvalidArgument, match="layout"):
        _core.NodeSegment.attach(fd)
    os.close(fd)


def test_board_refuses_older_generations_and_large_rosters() -> None:
    made = segment()
    made.publish(2, b"two")
    with pytest.raises(InvalidArgument, match="not newer"):
        made.publish(2, b"again")
    with pytest.raises(OutOfSpace):
        made.publish(3, b"x" * ((256 << 10) + 1))
    assert made.board_generation == 2


def test_rank_blob_keeps_two_tags_and_rewrites_its_own() -> None:
    made = segment()
    made.prepare_slot(0, 1)
    pid = os.fork()
    if pid == 0:
        worker = _core.Worker.attach(made, 0, 1)
        for tag, blob in ((3, b"three"), (4, b"four"), (4, b"four again")):
            worker.set_rank_blob(1, tag, blob)
        os._exit(0)
    os.waitpid(pid, 0)
    assert sorted(made.rank_blob(1)) == [(3, b"three"), (4, b"four again")]
    assert made.rank_blob(0) == []


def test_fault_fires_once() -> None:
    made = segment()
    assert [made.fire_fault(5), made.fire_fault(5), made.fire_fault(6)] == [True, False, True]


def test_closing_returns_steps_by_rank_and_is_idempotent() -> None:
    made = segment(3)
    made.open_commit([2, 0], 4, 10)
    made.set_ranked([2, 0])
    assert made.close_generation(4) == [10, 10]
    assert made.close_generation(4) == [10, 10]
    assert (made.revoked_generation, made.slot_info(0).commit_closed) == (4, True)
    assert not made.slot_info(1).commit_closed


def test_unknown_slots_are_refused() -> None:
    made = segment()
    for call in (
        lambda: made.prepare_slot(2, 1),
        lambda: made.slot_info(-1),
        lambda: made.set_ranked([7]),
    ):
        with pytest.raises(NotFound, match="slot"):
            call()


def test_generation_beyond_the_word_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="23"):
        segment().open_commit([0], 1 << 23, 0)


def test_closed_generation_is_remembered_after_the_next_is_open() -> None:
    made = segment()
    made.open_commit([0, 1], 1, 7)
    assert made.committed_steps(1) is None
    made.set_ranked([0, 1])
    made.close_generation(1)
    made.open_commit([0], 2, 7)
    made.prepare_slot(1, 5)
    assert (made.committed_steps(1), made.committed_steps(2)) == (7, None)
    assert made.close_generation(1) == [7, 7]
    assert not made.slot_info(0).commit_closed, "closing an old generation touches no newer word"


def test_opening_closes_what_is_older() -> None:
    made = segment(3)
    made.open_commit([0, 1], 3, 7)
    made.open_commit([2], 4, 7)
    assert made.committed_steps(3) == 7
    assert made.slot_info(0).commit_closed and not made.slot_info(2).commit_closed
    for generation in (4, 3):
        with pytest.raises(InvalidArgument, match="already in generation 4"):
            made.open_commit([2], generation, 7)


def test_released_slot_leaves_its_steps_in_the_ledger() -> None:
    made = segment()
    made.open_commit([0, 1], 1, 7)
    made.release_slot(1)
    assert made.committed_steps(1) == 7
    assert made.slot_info(0).commit_closed


def test_one_slot_cannot_hold_two_ranks() -> None:
    with pytest.raises(InvalidArgument, match="two ranks"):
        segment().set_ranked([1, 1])


def test_segment_cannot_be_resized() -> None:
    made = segment()
    for size in (0, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(made.fd, size)


def test_board_keeps_the_newest_whatever_numbers_are_left_out() -> None:
    made = segment()
    for generation in (1, 3, 5, 6):
        made.publish(generation, str(generation).encode() * 9)
        assert made.board_generation == generation


@pytest.mark.parametrize(
    ("tags", "left"),
    [
        ([1, 2, 3], [2, 3]),
        ([4, 5, 5], [4, 5]),  # a step that is run again must not cost the boundary before it
        ([8, 9, 3], [3, 8]),  # back to an older state
        ([8, 9, 3, 4], [3, 4]),
    ],
)
def test_rank_blob_keeps_the_boundary_before(tags: list[int], left: list[int]) -> None:
    made = segment()
    made.prepare_slot(0, 1)
    pid = os.fork()
    if pid == 0:
        worker = _core.Worker.attach(made, 0, 1)
        for tag in tags:
            worker.set_rank_blob(70, tag, b"%d" % tag)
        os._exit(0)
    os.waitpid(pid, 0)
    assert sorted(made.rank_blob(70)) == [(tag, b"%d" % tag) for tag in left]
    assert made.rank_blob(70 - 64) == [], "another rank with the same place"
