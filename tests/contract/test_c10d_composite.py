"""The backend of two: a Gloo group stands in NCCL's place, for CPU tensors: no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from c10d_ranks import run_ranks

pytestmark = pytest.mark.torch

PATIENCE = timedelta(seconds=30)


class GlooDouble:
    """Makes Gloo groups where torch's NCCL ones would be made; a test double. Counts them."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int, str, list[int]]] = []

    def __call__(
        self, store: Any, rank: int, size: int, timeout: timedelta, name: str, ranks: list[int]
    ) -> Any:
        self.made.append((rank, size, name, ranks))
        gloo = dist.ProcessGroupGloo(store, rank, size, timeout=timeout)
        gloo.options.group_name = name
        return gloo


def composite_group(double: Callable[..., Any], device_type: str) -> Any:
    """A sub-group of all ranks; tensors of `device_type` go to the double."""
    from hpcore import _c10d

    def create(options: Any, _: Any) -> Any:
        store, name, members = options.store, options.group_id, list(options.global_ranks_in_group)
        cpu = _c10d.make_backend(
            store, options.group_rank, options.group_size, PATIENCE, name, members, None, 1, False
        )
        return _c10d.make_composite(cpu, store, PATIENCE, double, device_type, None, 1)

    if "composite" not in dist.Backend.backend_list:
        dist.Backend.register_backend("composite", create, extended_api=True, devices=["cpu"])
    return dist.new_group(backend="composite")


def check_operations(rank: int, size: int, group: Any) -> None:
    total = size * (size + 1) / 2
    ones = torch.full((5,), float(rank + 1))
    dist.all_reduce(ones, group=group)
    assert ones.tolist() == [total] * 5
    value = torch.tensor([float(rank)])
    dist.broadcast(value, 1, group=group)
    assert value.item() == 1
    dist.reduce(value, 0, group=group)
    assert rank or value.item() == size
    gathered = torch.empty(size)
    dist.all_gather_into_tensor(gathered, torch.tensor([float(rank)]), group=group)
    assert gathered.tolist() == list(range(size))
    parts = [torch.empty(1) for _ in range(size)]
    dist.all_gather(parts, torch.tensor([float(rank)]), group=group)
    assert [p.item() for p in parts] == list(range(size))
    part = torch.empty(1)
    dist.reduce_scatter_tensor(part, torch.arange(float(size)), group=group)
    assert part.item() == rank * size
    swapped = torch.empty(size)
    dist.all_to_all_single(swapped, torch.arange(float(size)) + 10 * rank, group=group)
    assert swapped.tolist() == [10.0 * other + rank for other in range(size)]
    whole = [torch.empty(1) for _ in range(size)] if rank == 0 else None
    dist.gather(torch.tensor([float(rank)]), whole, 0, group=group)
    assert whole is None or [p.item() for p in whole] == list(range(size))
    dist.scatter(
        part, [torch.tensor([r + 0.5]) for r in range(size)] if not rank else None, 0, group
    )
    assert part.item() == rank + 0.5
    dist.barrier(group=group)
    if rank == 0:
        dist.send(torch.tensor([42.0]), 1, group=group)
    elif rank == 1:
        dist.recv(part, 0, group=group)
        assert part.item() == 42
    objects: list[Any] = [None] * size
    dist.all_gather_object(objects, {"rank": rank}, group=group)
    assert objects == [{"rank": other} for other in range(size)]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_composite_serves_every_operation_of_its_device(device_type: str) -> None:
    """With "cpu" the double serves them all, with "cuda" none: then it is never made."""

    def work(rank: int) -> int:
        double = GlooDouble()
        group = composite_group(double, device_type)
        assert double.made == []
        check_operations(rank, 3, group)
        works = [dist.all_reduce(torch.ones(3), group=group, async_op=True) for _ in range(3)]
        for work in works:
            work.wait()
        dist.destroy_process_group(group)
        return len(double.made)

    assert run_ranks(3, work) == [1 if device_type == "cpu" else 0] * 3


def test_composite_coalesces_what_its_parts_can() -> None:
    def work(rank: int) -> None:
        group = composite_group(GlooDouble(), "cuda")
        tensors = [torch.full((4,), float(rank + i)) for i in range(3)]
        with dist._coalescing_manager(group, torch.device("cpu"), async_ops=True) as handle:
            for tensor in tensors:
                dist.all_reduce(tensor, group=group)
        handle.wait()
        assert [t[0].item() for t in tensors] == [1 + 2 * i for i in range(3)]

    run_ranks(2, work)


def test_composite_maker_that_fails_is_told_and_tried_again() -> None:
    def work(rank: int) -> None:
        double = GlooDouble()
        refusals = [RuntimeError("no such device here")]

        def reluctant(*arguments: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return double(*arguments)

        group = composite_group(reluctant, "cpu")
        with pytest.raises(RuntimeError, match="no such device here"):
            dist.all_reduce(torch.ones(1), group=group)
        tensor = torch.ones(1)
        dist.all_reduce(tensor, group=group)
        assert tensor.item() == 2 and len(double.made) == 1

    run_ranks(2, work)


def test_composite_splits_and_ends_both() -> None:
    def work(rank: int) -> None:
        double = GlooDouble()
        group = composite_group(double, "cpu")
        backend = group._get_backend(torch.device("cpu"))
        dist.all_reduce(torch.ones(1), group=group)
        half = group.split_group([0, 1], group_name="both again")
        tensor = torch.ones(1)
        half.allreduce([tensor]).wait()
        assert tensor.item() == 2
        assert [made[2] for made in double.made[1:]] == ["both again"]
        backend.abort()
        with pytest.raises(RuntimeError):
            dist.all_reduce(torch.ones(1), group=group)

    run_ranks(2, work)


since_2_14 = pytest.mark.skipif(
    not hasattr(dist.ProcessGroup, "reconfigure"), reason=f"torch {torch.__version__}: since 2.14"
)


@since_2_14
def test_composite_passes_gather_single_on() -> None:
    def work(rank: int) -> None:
        group = composite_group(GlooDouble(), "cuda")
        output = torch.empty(3) if rank == 2 else None
        dist.gather_single(torch.tensor([float(rank)]), output, group=group, group_dst=2)
        assert output is None or output.tolist() == [0.0, 1.0, 2.0]

    run_ranks(3, work)


@since_2_14
def test_composite_moves_to_other_members_and_makes_its_accelerator_anew() -> None:
    def work(rank: int) -> list[tuple[int, int, str, list[int]]]:
        double = GlooDouble()
        group = composite_group(double, "cpu")
        dist.all_reduce(torch.ones(1), group=group)
        if rank == 1:
            return double.made
        store = dist.distributed_c10d._get_default_store()
        store.set(f"handle/{rank}", dist._get_reconfigure_handle(group))
        handles = [store.get(f"handle/{other}").decode() for other in (2, 0)]
        dist._reconfigure(1, handles, group=group, timeout=PATIENCE).wait()
        assert (group.rank(), group.size()) == (1 - rank // 2, 2)
        tensor = torch.full((3,), rank + 1.0)
        dist.all_reduce(tensor, group=group)
        assert tensor.tolist() == [4.0] * 3
        return double.made

    first, second, third = run_ranks(3, work)
    name = first[0][2]
    assert first == [(0, 3, name, [0, 1, 2]), (1, 2, name, [2, 0])]
    assert second == [(1, 3, name, [0, 1, 2])]
    assert third == [(2, 3, name, [0, 1, 2]), (0, 2, name, [2, 0])]
