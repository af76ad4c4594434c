"""Point-to-point operations: any order that MPI allows must not deadlock."""

from __future__ import annotations

import os
import random
import signal
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from c10d_ranks import run_ranks

from hpcore import errors

pytestmark = pytest.mark.torch

BIG = 3_000_000  # elements: several rings


def test_c10d_messages_in_both_directions_at_once() -> None:
    def work(rank: int) -> None:
        other = 1 - rank
        for size in (0, 1, 1000, BIG):
            for sends_first in (True, False):
                mine = torch.arange(size, dtype=torch.int32) + rank
                theirs = torch.empty(size, dtype=torch.int32)
                if sends_first:
                    works = [dist.isend(mine, other), dist.irecv(theirs, other)]
                else:
                    works = [dist.irecv(theirs, other), dist.isend(mine, other)]
                for handle in works:
                    handle.wait()
                assert torch.equal(theirs, torch.arange(size, dtype=torch.int32) + other)
        gathered = [torch.empty(BIG) for _ in range(3)]
        sends = [dist.isend(torch.full((BIG,), float(i + rank)), other) for i in range(3)]
        receives = [dist.irecv(tensor, other) for tensor in gathered]
        for handle in [*reversed(sends), *reversed(receives)]:
            handle.wait()
        assert [tensor[-1].item() for tensor in gathered] == [i + other for i in range(3)]

    run_ranks(2, work)


def test_c10d_messages_match_by_tag_and_order() -> None:
    def work(rank: int) -> None:
        if rank == 0:
            for tag in (3, 1, 2, 1):
                dist.send(torch.tensor([10 * tag, rank]), 1, tag=tag)
            dist.send(torch.full((BIG,), 7.0), 1, tag=9)
            dist.send(torch.full((BIG,), 8.0), 1, tag=8)
        else:
            got = torch.zeros(2, dtype=torch.int64)
            for tag in (1, 2, 3, 1):
                dist.recv(got, 0, tag=tag)
                assert got[0] == 10 * tag
            big = torch.empty(BIG)
            dist.recv(big, 0, tag=8)  # the one with tag 9 is set aside
            assert big[-1] == 8
            dist.recv(big, 0, tag=9)
            assert big[-1] == 7

    run_ranks(2, work)


def test_c10d_receives_from_any_source() -> None:
    def work(rank: int) -> list[int]:
        if rank:
            dist.send(torch.full((5,), float(rank)), 0, tag=rank % 2)
            return []
        seen = []
        for tag in (1, 0, 1):
            got = torch.empty(5)
            source = dist.recv(got, None, tag=tag)
            assert got.tolist() == [float(source)] * 5
            seen.append(source)
        return seen

    assert sorted(run_ranks(4, work)[0]) == [1, 2, 3]


def test_c10d_batch_of_messages_around_a_ring() -> None:
    def work(rank: int) -> None:
        right, left = (rank + 1) % 3, (rank - 1) % 3
        for size in (4, BIG):
            for flip in (False, True):
                got = torch.empty(size)
                ops = [
                    dist.P2POp(dist.isend, torch.full((size,), float(rank)), right),
                    dist.P2POp(dist.irecv, got, left),
                ]
                for handle in dist.batch_isend_irecv(ops[::-1] if flip else ops):
                    handle.wait()
                assert (got == left).all()

    run_ranks(3, work)


def test_c10d_messages_move_while_ranks_are_in_a_collective() -> None:
    def work(rank: int) -> None:
        got = torch.empty(BIG)
        handle = dist.isend(torch.full((BIG,), 5.0), 1) if rank == 0 else dist.irecv(got, 0)
        tensor = torch.ones(1000)
        for _ in range(5):
            dist.all_reduce(tensor)
        if rank == 1:
            handle.wait()
            assert (got == 5).all()
        dist.barrier()  # rank 0 never waits for its send: the thread has sent it

    run_ranks(2, work)


def test_c10d_object_messages() -> None:
    def work(rank: int) -> None:
        if rank == 0:
            dist.send_object_list(["text", {"a": [1, 2]}, None], 1)
        else:
            objects = [None, None, None]
            dist.recv_object_list(objects, 0)
            assert objects == ["text", {"a": [1, 2]}, None]

    run_ranks(2, work)


def test_c10d_message_errors_name_the_peer() -> None:
    def work(rank: int) -> None:
        group = dist.new_group([0, 1], timeout=timedelta(milliseconds=200))
        if rank == 0:
            with pytest.raises(errors.DeadlineExceeded, match=r"tag 4.*missing rank 1"):
                dist.recv(torch.empty(3), 1, tag=4, group=group)
            dist.send(torch.zeros(3), 1)
        else:
            with pytest.raises(errors.MismatchError, match="has 12 bytes, the tensor 40"):
                dist.recv(torch.empty(10), 0)
        dist.barrier()
        if rank == 0:  # nobody receives it: half of it stays in the ring
            with pytest.raises(errors.DeadlineExceeded, match="missing rank 1"):
                dist.isend(torch.zeros(BIG), 1, group=group).wait()

    run_ranks(2, work)


def test_c10d_death_of_a_peer_ends_messages_with_it_only() -> None:
    def work(rank: int) -> None:
        dist.barrier()
        if rank == 1:
            dist.isend(torch.full((3,), 7.0), 0)
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 0:
            sent_before = torch.empty(3)
            dist.recv(sent_before, 1)
            assert sent_before.tolist() == [7.0] * 3
            from_living = dist.irecv(torch.empty(3), 2)
            with pytest.raises(errors.PeerDead, match=r"rank 1 .*has ended"):
                dist.recv(torch.empty(3), 1)
            with pytest.raises(errors.PeerDead, match=r"rank 1 .*has ended"):
                dist.isend(torch.zeros(BIG), 1).wait()
            assert not from_living.is_completed()
            dist.send(torch.empty(1), 2)
            from_living.wait()
        elif rank == 2:
            dist.recv(torch.empty(1), 0)
            dist.send(torch.empty(3), 0)

    run_ranks(3, work, expect_killed=(1,))


MEMBERS = ([0, 1, 2], [0, 1], [1, 2])


def random_round(plan: random.Random, order: random.Random, rank: int, groups: list[Any]) -> None:
    """The same messages and collectives on all ranks, each rank begins its own in any order."""
    messages = []
    for number in range(plan.randrange(12)):
        group = plan.randrange(3)
        source, target = plan.sample(MEMBERS[group], 2)
        size = plan.choice([0, 1, 5, 1000, 70_000, 900_000])
        messages.append((group, source, target, plan.randrange(3), size, float(number)))
    reductions = [plan.randrange(3) for _ in range(plan.randrange(4))]
    mine: dict[str, list[Any]] = {
        "send": [m for m in messages if m[1] == rank],
        "receive": [m for m in messages if m[2] == rank],
        "reduce": [group for group in reductions if rank in MEMBERS[group]],
    }
    works, received = [], []
    while any(mine.values()):
        kind = order.choice([kind for kind, left in mine.items() if left])
        item = mine[kind].pop(0)
        if kind == "reduce":
            works.append(dist.all_reduce(torch.ones(1), group=groups[item], async_op=True))
            continue
        group, source, target, tag, size, value = item
        if kind == "send":
            tensor = torch.full((size,), value)
            works.append(dist.isend(tensor, target, group=groups[group], tag=tag))
        else:
            tensor = torch.empty(size)
            received.append((tensor, value))
            works.append(dist.irecv(tensor, source, group=groups[group], tag=tag))
    order.shuffle(works)
    for handle in works:
        handle.wait()
    assert all((tensor == value).all() for tensor, value in received)


@pytest.mark.parametrize("seed", range(3))
def test_c10d_messages_in_any_order_beside_collectives(seed: int) -> None:
    def work(rank: int) -> None:
        plan, order = random.Random(seed), random.Random(100 * seed + rank)
        groups = [None, dist.new_group([0, 1]), dist.new_group([1, 2])]
        for _ in range(80):
            random_round(plan, order, rank, groups)

    run_ranks(3, work)
