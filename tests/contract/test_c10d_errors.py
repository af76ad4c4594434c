"""What the hpcore backend refuses, and how it says so; how groups end."""

from __future__ import annotations

import os
import signal
import threading
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


def test_c10d_refuses_what_it_does_not_know() -> None:
    def work(rank: int) -> None:
        backend = own_backend()
        assert backend.name() == "hpcore"
        sparse = torch.eye(3).to_sparse()
        with pytest.raises(errors.Unsupported, match=r"sparse.*to_dense"):
            dist.all_reduce(sparse)
        with pytest.raises(errors.Unsupported, match="sparse"):
            backend.broadcast([sparse], dist.BroadcastOptions())
        with pytest.raises(errors.Unsupported, match=r"Float8_e4m3fnuz.*float32"):
            dist.all_reduce(torch.zeros(4, dtype=torch.float8_e4m3fnuz))
        with pytest.raises(errors.Unsupported, match=r"meta.*CPU tensors.*cuda:nccl"):
            backend.allreduce([torch.empty(3, device="meta")], dist.AllreduceOptions()).wait()
        with pytest.raises(errors.Unsupported, match="no meaning for float32"):
            dist.all_reduce(torch.zeros(4), dist.ReduceOp.BAND)
        with pytest.raises(errors.InvalidArgument, match="exactly one tensor, got 2"):
            backend.allreduce([torch.zeros(1), torch.zeros(1)], dist.AllreduceOptions()).wait()
        with pytest.raises(errors.InvalidArgument, match="has 3 elements, needs 4"):
            dist.all_gather_into_tensor(torch.zeros(3), torch.zeros(2))
        with pytest.raises(errors.InvalidArgument, match="sum to 3"):
            dist.all_to_all_single(torch.zeros(4), torch.zeros(4), [2, 2], [2, 1])
        with pytest.raises(errors.InvalidArgument, match="root 7"):
            options = dist.BroadcastOptions()
            options.rootRank = 7
            backend.broadcast([torch.zeros(1)], options).wait()
        tensor = torch.ones(2)
        dist.all_reduce(tensor)  # it goes on after all that
        assert tensor.tolist() == [2.0, 2.0]

    run_ranks(2, work)


def test_c10d_mismatch_is_told_to_all_ranks() -> None:
    def work(rank: int) -> None:
        with pytest.raises(errors.MismatchError):
            dist.all_reduce(torch.zeros(4 + rank))
        with pytest.raises(errors.MismatchError):
            dist.all_reduce(torch.zeros(4, dtype=torch.float32 if rank else torch.int32))
        with pytest.raises(errors.MismatchError):
            dist.barrier() if rank else dist.all_reduce(torch.zeros(1))
        tensor = torch.ones(2)
        dist.all_reduce(tensor)
        assert tensor.tolist() == [2.0, 2.0]

    run_ranks(2, work)


def test_c10d_deadline_names_the_missing_ranks() -> None:
    def work(rank: int) -> None:
        group = dist.new_group(timeout=timedelta(milliseconds=300))
        dist.barrier(group=group)
        if rank == 0:
            with pytest.raises(errors.DeadlineExceeded, match=r"rank(s)? .*1") as caught:
                dist.all_reduce(torch.zeros(4), group=group)
            assert isinstance(caught.value, TimeoutError)
            assert "all_reduce" in str(caught.value)
        late = dist.new_group(timeout=timedelta(milliseconds=300))
        dist.barrier()
        if rank == 1:  # rank 0 is there, but does not take part
            with pytest.raises(errors.DeadlineExceeded, match="barrier"):
                own_backend(late).monitored_barrier(wait_all_ranks=True)
        dist.barrier()

    run_ranks(2, work)


def test_c10d_error_reaches_futures_and_later_waits() -> None:
    def work(rank: int) -> None:
        handle = dist.all_reduce(torch.zeros(4 + rank), async_op=True)
        future = handle.get_future()
        with pytest.raises(errors.MismatchError):
            future.wait()
        for _ in range(2):
            with pytest.raises(errors.MismatchError):
                handle.wait()
        assert handle.is_completed()
        assert handle.exception() is not None

    run_ranks(2, work)


def test_c10d_abort_ends_operations_under_way() -> None:
    def work(rank: int) -> None:
        dist.barrier()
        if rank == 0:
            backend = own_backend()
            handle = dist.all_reduce(torch.zeros(4), async_op=True)
            receive = dist.irecv(torch.zeros(4), 1)
            timer = threading.Timer(0.05, backend.abort)
            timer.start()
            with pytest.raises(errors.Aborted):
                handle.wait()
            with pytest.raises(errors.Aborted):
                receive.wait()
            timer.join()
            with pytest.raises(errors.Aborted):
                dist.barrier()
            with pytest.raises(errors.Aborted):
                dist.isend(torch.zeros(1), 1)

    run_ranks(2, work)


def test_c10d_wait_with_a_timeout_leaves_the_operation() -> None:
    def work(rank: int) -> None:
        tensor = torch.ones(3)
        if rank == 0:
            handle = dist.all_reduce(tensor, async_op=True)
            with pytest.raises(errors.DeadlineExceeded, match="goes on"):
                handle.wait(timedelta(milliseconds=20))
            dist.send(torch.zeros(1), 1)
            handle.wait()
        else:
            dist.recv(torch.zeros(1), 0)
            dist.all_reduce(tensor)
        assert tensor.tolist() == [2.0] * 3

    run_ranks(2, work)


def test_c10d_survivors_are_told_which_member_was_killed() -> None:
    def work(rank: int) -> None:
        group = dist.new_group()
        dist.barrier(group=group)
        if rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(errors.PeerDead, match=r"rank 2 of 3 \(pid [0-9]+\) has ended"):
            dist.all_reduce(torch.zeros(1000), group=group)
        with pytest.raises(errors.HpcoreError):  # ranks may differ now: the group is over
            dist.barrier(group=group)

    run_ranks(3, work, expect_killed=(2,))
