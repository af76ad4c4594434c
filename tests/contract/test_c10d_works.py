"""Handles of operations, sequence numbers, and what is said when ranks disagree or do not come."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from c10d_ranks import run_ranks

from hpcore import errors

pytestmark = pytest.mark.torch


def own_backend(group: Any = None) -> Any:
    return (group or dist.group.WORLD)._get_backend(torch.device("cpu"))


def test_c10d_works_tell_how_they_stand() -> None:
    def work(rank: int) -> None:
        begun = torch.ones(1)
        if rank == 1:
            dist.recv(begun, 0)  # rank 0 has asked its handle meanwhile
        tensor = torch.full((4,), rank + 1.0)
        handle = dist.all_reduce(tensor, async_op=True)
        future = handle.get_future()
        doubled = future.then(lambda done: done.value()[0] * 2)
        if rank == 0:
            assert not handle.is_completed() and not future.done() and not doubled.done()
            with pytest.raises(errors.InvalidArgument, match="not complete"):
                handle._get_duration()
            dist.send(begun, 1)
        assert handle.wait() is True
        assert handle.is_completed() and handle.is_success() and future.done()
        assert handle.exception() is None
        assert 0 < handle._get_duration() < 60_000  # ms
        assert [t.tolist() for t in future.value()] == [[3.0] * 4]
        assert future.value()[0].data_ptr() == tensor.data_ptr() == handle.result()[0].data_ptr()
        assert doubled.wait().tolist() == [6.0] * 4
        assert handle.get_future().wait()[0].tolist() == [3.0] * 4
        outs = [torch.empty(2), torch.empty(2)]
        gathered = dist.all_gather(outs, torch.full((2,), float(rank)), async_op=True)
        gathered.wait()
        assert [t[0].item() for t in gathered.result()] == [0.0, 1.0]
        assert dist.barrier(async_op=True).get_future().wait() == []
        if rank == 0:
            source = dist.irecv(torch.empty(1))
            source.wait()
            assert source.source_rank() == 1
        else:
            dist.isend(begun, 0).wait()

    run_ranks(2, work)


def test_c10d_failed_works_tell_why_in_every_way() -> None:
    def work(rank: int) -> None:
        handle = dist.all_reduce(torch.zeros(2 + rank), async_op=True)
        future = handle.get_future()
        seen: list[str] = []
        later = future.then(lambda done: seen.append("ran") or done.value())
        with pytest.raises(errors.MismatchError):
            handle.wait()
        assert handle.is_completed() and not handle.is_success()
        assert handle.exception() is not None
        with pytest.raises(errors.MismatchError, match="disagree"):
            future.wait()
        with pytest.raises(RuntimeError, match="MismatchError: ranks disagree"):  # torch wraps it
            later.wait()
        assert seen == ["ran"]
        with dist._coalescing_manager(async_ops=True) as manager:
            dist.all_reduce(torch.zeros(3 + rank))
            dist.all_reduce(torch.zeros(3))
        with pytest.raises(errors.MismatchError):
            manager.wait()
        dist.barrier()

    run_ranks(2, work)


def test_c10d_sequence_numbers_count_alike_on_all_ranks() -> None:
    def work(rank: int) -> list[int]:
        half = dist.new_group([0, 2])
        numbers = [own_backend()._get_sequence_number_for_group()]
        dist.all_reduce(torch.ones(1))
        works = [dist.all_reduce(torch.ones(1), async_op=True) for _ in range(3)]
        numbers.append(own_backend()._get_sequence_number_for_group())
        for handle in works:
            handle.wait()
        if rank != 1:  # groups count by themselves
            dist.barrier(group=half)
            assert own_backend(half)._get_sequence_number_for_group() == 1
        numbers.append(own_backend()._get_sequence_number_for_group())
        with pytest.raises(errors.MismatchError, match="operation"):
            dist.all_reduce(torch.ones(1 + rank))  # a failed one counts too
        numbers.append(own_backend()._get_sequence_number_for_group())
        return numbers

    first, *others = run_ranks(3, work)
    assert [number - first[0] for number in first] == [0, 4, 4, 5]
    assert others == [first, first]


def test_c10d_batch_of_messages_and_coalescing_are_one_handle() -> None:
    def work(rank: int) -> None:
        right, left = (rank + 1) % 3, (rank - 1) % 3
        got = [torch.empty(5, dtype=torch.int64) for _ in range(4)]
        ops = [dist.P2POp(dist.irecv, tensor, left, tag=i) for i, tensor in enumerate(got)]
        sent = [torch.full((5,), 10 * rank + i) for i in range(4)]
        ops += [dist.P2POp(dist.isend, sent[i], right, tag=i) for i in (3, 1, 0, 2)]
        for handle in dist.batch_isend_irecv(ops):
            handle.wait()
        assert [t[0].item() for t in got] == [10 * left + i for i in range(4)]
        with dist._coalescing_manager(async_ops=True) as manager:
            pass
        manager.wait()
        with dist._coalescing_manager() as manager:  # waits at its end
            tensors = [torch.full((2,), float(rank)) for _ in range(3)]
            for tensor in tensors:
                dist.all_reduce(tensor, dist.ReduceOp.MAX)
        assert [t.tolist() for t in tensors] == [[2.0, 2.0]] * 3

    run_ranks(3, work)


def premultiplied(factor: float) -> Any:
    return dist._make_nccl_premul_sum(factor)


Calls = dict[str, tuple[Callable[[], Any], Callable[[], Any], str]]


def disagreements() -> Calls:
    """What ranks 0 and 1 call, what rank 2 calls, and what all of them must be told."""
    t, i = torch.zeros(4), torch.zeros(4, dtype=torch.int32)
    out, wide = torch.zeros(12), torch.zeros(6)
    largest = dist.ReduceOp.MAX
    return {
        "operation": (
            lambda: dist.all_reduce(t),
            lambda: dist.broadcast(t, 0),
            r"all_reduce\(sum, float32, 4 elements\).*broadcast\(float32, 4 elements, root 0\)",
        ),
        "barrier": (lambda: dist.barrier(), lambda: dist.all_reduce(t), r"barrier.*all_reduce"),
        "dtype": (lambda: dist.all_reduce(t), lambda: dist.all_reduce(i), "float32.*int32"),
        "copied dtype": (
            lambda: dist.broadcast(t, 0),
            lambda: dist.broadcast(i, 0),
            "float32.*int32",
        ),
        "size": (lambda: dist.all_reduce(t), lambda: dist.all_reduce(wide), "4 elements.*6 el"),
        "root": (
            lambda: dist.broadcast(t, 0),
            lambda: dist.broadcast(t, 1),
            "root 0.*root 1",
        ),
        "reduce op": (
            lambda: dist.all_reduce(t),
            lambda: dist.all_reduce(t, largest),
            r"\(sum,.*\(max,",
        ),
        "factor": (
            lambda: dist.all_reduce(t, premultiplied(2.0)),
            lambda: dist.all_reduce(t, premultiplied(3.0)),
            "differ in the factor",
        ),
        "gathered size": (
            lambda: dist.all_gather_into_tensor(out, t),
            lambda: dist.all_gather_into_tensor(torch.zeros(18), wide),
            "12 elements.*18 elements",
        ),
        "gathered at root": (
            lambda: dist.gather(t, [t, t, t] if dist.get_rank() == 0 else None, 0),
            lambda: dist.gather(wide, None, 0),
            "rank 2 sends 6 elements to rank 0, which expects 4",
        ),
        "scattered": (
            lambda: dist.scatter(t, [t, t, t] if dist.get_rank() == 0 else None, 0),
            lambda: dist.scatter(wide, None, 0),
            "rank 0 sends 4 elements to rank 2, which expects 6",
        ),
        "splits": (
            lambda: dist.all_to_all_single(wide, wide.clone(), [2, 2, 2], [2, 2, 2]),
            lambda: dist.all_to_all_single(torch.zeros(7), wide, [3, 2, 2], [2, 2, 2]),
            "rank 0 sends 2 elements to rank 2, which expects 3",
        ),
    }


def test_c10d_disagreements_are_named_on_all_ranks() -> None:
    def work(rank: int) -> dict[str, str]:
        told = {}
        for name, (usual, odd, _) in disagreements().items():
            with pytest.raises(errors.MismatchError) as caught:
                odd() if rank == 2 else usual()
            told[name] = str(caught.value)
            tensor = torch.ones(1)
            dist.all_reduce(tensor)  # the group goes on
            assert tensor.item() == 3.0
        return told

    for rank, told in enumerate(run_ranks(3, work)):
        for name, (_, _, pattern) in disagreements().items():
            text = told[name]
            assert "rank 2" in text, (name, rank, text)
            first, dots, second = pattern.partition(".*")
            backwards = second + dots + first  # each rank names itself first
            assert re.search(pattern, text) or re.search(backwards, text), (name, rank, text)


def test_c10d_monitored_barrier_names_late_ranks() -> None:
    def work(rank: int) -> str:
        group = dist.new_group()
        group.monitored_barrier(timedelta(seconds=40), True)
        store = dist.distributed_c10d._get_default_store()
        if rank > 1:  # late: the others have given up
            store.wait(["gave up 0", "gave up 1"])
            return ""
        with pytest.raises(errors.DeadlineExceeded, match="barrier") as caught:
            group.monitored_barrier(timedelta(milliseconds=200), True)
        store.set(f"gave up {rank}", b"")
        return str(caught.value)

    for text in run_ranks(4, work)[:2]:
        assert re.search(r"2 of 4 ranks are missing: 2 \(.*, 3 \(", text), text


def test_c10d_monitored_barrier_names_a_dead_rank_at_once() -> None:
    def work(rank: int) -> str:
        group = dist.new_group()
        group.monitored_barrier(timedelta(seconds=50), True)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(errors.PeerDead) as caught:
            group.monitored_barrier(timedelta(seconds=50), True)
        return str(caught.value)

    told = run_ranks(3, work, expect_killed=(1,))
    assert all("rank 1 of 3" in text and "barrier" in text for text in (told[0], told[2])), told


def test_c10d_missing_ranks_of_a_subgroup_are_global_ones() -> None:
    def work(rank: int) -> str:
        group = dist.new_group([0, 2], timeout=timedelta(milliseconds=200))
        if rank != 0:
            dist.barrier()
            return ""
        with pytest.raises(errors.DeadlineExceeded) as caught:
            dist.barrier(group=group)
        dist.barrier()
        return str(caught.value)

    told = run_ranks(3, work)[0]
    assert "ranks are missing: 1 (" in told and "are the global ranks 0, 2" in told, told
