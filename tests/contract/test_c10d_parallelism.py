"""What torch builds on a backend: groups, meshes, DDP, FSDP2, checkpoints, objects, functional."""

from __future__ import annotations

import itertools
import os
import tempfile
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
import torch.distributed.checkpoint as checkpoint
from c10d_ranks import run_ranks
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.torch


def model_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Linear(64, 4))


def train_ddp(rank: int) -> list[torch.Tensor]:
    model = DistributedDataParallel(model_of(rank), bucket_cap_mb=0.001)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(100 + rank)
    for _ in range(6):
        data = torch.randn(8, 16, generator=generator)
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.module.parameters()]


def test_c10d_ddp_trains_as_with_gloo() -> None:
    ours = run_ranks(2, train_ddp)
    gloos = run_ranks(2, train_ddp, backend="gloo")
    for a, b, c in zip(ours[0], ours[1], gloos[0], strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c)


def sharded_model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(15, 33), nn.ReLU(), nn.Linear(33, 33), nn.ReLU(), nn.Linear(33, 3)
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(model)
    return model


def train_fsdp(rank: int) -> list[torch.Tensor]:
    model = sharded_model(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(8, 15, generator=generator)).square().mean().backward()
        optimizer.step()
    return [p.full_tensor().detach() for p in model.parameters()]  # type: ignore[attr-defined]


def test_c10d_fsdp2_trains_as_with_gloo() -> None:
    ours = run_ranks(4, train_fsdp)
    gloos = run_ranks(4, train_fsdp, backend="gloo")
    for a, b, c in zip(ours[0], ours[-1], gloos[0], strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)


def test_c10d_checkpoint_of_a_sharded_model_survives() -> None:
    with tempfile.TemporaryDirectory() as folder:

        def work(rank: int) -> None:
            model = sharded_model(0)
            checkpoint.save({"model": get_model_state_dict(model)}, checkpoint_id=folder)
            other = sharded_model(1)
            state = {"model": get_model_state_dict(other)}
            checkpoint.load(state, checkpoint_id=folder)
            set_model_state_dict(other, state["model"])
            for a, b in zip(model.parameters(), other.parameters(), strict=True):
                assert torch.equal(a.full_tensor(), b.full_tensor())  # type: ignore[attr-defined]

        run_ranks(2, work)


def test_c10d_device_mesh_of_two_by_two() -> None:
    def work(rank: int) -> None:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        members = {"dp": [rank % 2, rank % 2 + 2], "tp": [rank // 2 * 2, rank // 2 * 2 + 1]}
        for name, ranks in members.items():
            tensor = torch.tensor([float(rank)])
            group = mesh.get_group(name)
            assert dist.get_process_group_ranks(group) == ranks
            assert dist.get_backend(group) == "hpcore"
            dist.all_reduce(tensor, group=group)
            assert tensor.item() == sum(ranks)
        model = nn.Linear(8, 8)
        dist.broadcast(model.weight.detach(), 0)
        fully_shard(model, mesh=mesh["dp"])
        model(torch.ones(2, 8)).sum().backward()

    run_ranks(4, work)


def test_c10d_groups_of_every_subset_and_two_interleaved() -> None:
    def work(rank: int) -> None:
        groups: dict[tuple[int, ...], Any] = {}
        for size in range(1, 4):
            for ranks in itertools.combinations(range(4), size):
                groups[ranks] = dist.new_group(list(ranks))
        for ranks, group in groups.items():
            if rank in ranks:
                tensor = torch.tensor([float(rank)])
                dist.all_reduce(tensor, group=group)
                assert tensor.item() == sum(ranks)
        first, second = dist.new_group([0, 1, 2, 3]), dist.new_group([3, 1, 2])
        works = []
        tensors = [torch.full((1000,), float(rank + i)) for i in range(20)]
        for i, tensor in enumerate(tensors):
            group = second if i % 2 and rank != 0 else first
            if i % 2 == 0 or rank != 0:
                works.append(dist.all_reduce(tensor, group=group, async_op=True))
        for handle in works[::-1]:
            handle.wait()
        for i, tensor in enumerate(tensors):
            ranks_in = [1, 2, 3] if i % 2 else [0, 1, 2, 3]
            if rank in ranks_in:
                assert (tensor == sum(r + i for r in ranks_in)).all()
        if rank in (1, 2):  # the third member does nothing
            tensor = torch.tensor([rank])
            if rank == 1:
                dist.send(tensor, 2, group=second)
            else:
                dist.recv(tensor, 1, group=second)
                assert tensor.item() == 1
        dist.barrier()

    run_ranks(4, work)


def held_memory() -> tuple[int, int]:
    """Descriptors of this process, and hpcore's memory files that it has mapped."""
    with open("/proc/self/maps") as maps:
        mapped = sum("/memfd:hpcore" in line for line in maps)
    return len(os.listdir("/proc/self/fd")), mapped


def test_c10d_default_group_can_be_made_again_and_leaves_nothing() -> None:
    def work(rank: int) -> None:
        held = []
        for turn in range(8):
            tensor = torch.ones(2)
            dist.all_reduce(tensor)
            assert tensor.tolist() == [2.0, 2.0]
            pair = dist.new_group([0, 1])
            dist.all_reduce(tensor, group=pair, async_op=True).wait()
            dist.batch_isend_irecv([dist.P2POp(dist.irecv, tensor, 1 - rank, tag=turn)])
            dist.send(tensor, 1 - rank, tag=turn)
            store = dist.distributed_c10d._get_default_store()
            while isinstance(store, dist.PrefixStore):
                store = store.underlying_store
            dist.destroy_process_group()
            del pair
            held.append(held_memory())
            store = dist.PrefixStore(f"turn{turn}", store)
            dist.init_process_group("hpcore", store=store, rank=rank, world_size=2)
        assert held[-1] == held[1], held

    run_ranks(2, work)


def test_c10d_splits_a_group() -> None:
    def work(rank: int) -> tuple[int, int, float] | None:
        half = dist.group.WORLD.split_group([0, 2], group_name="half")
        if half is None:
            return None
        tensor = torch.tensor([float(rank)])
        half.allreduce([tensor]).wait()
        return half.rank(), half.size(), tensor.item()

    assert run_ranks(3, work) == [(0, 2, 2.0), None, (1, 2, 2.0)]


def test_c10d_objects_go_to_all_ranks() -> None:
    def work(rank: int) -> None:
        everything: list[Any] = [None] * 3
        mine = {"rank": rank, "text": "x" * rank * 1000}
        dist.all_gather_object(everything, mine)
        assert [e["rank"] for e in everything] == [0, 1, 2]
        gathered: list[Any] | None = [None] * 3 if rank == 1 else None
        dist.gather_object(rank, gathered, dst=1)
        assert gathered is None or gathered == [0, 1, 2]
        objects = ["a", {"b": 2}, None] if rank == 2 else [None] * 3
        dist.broadcast_object_list(objects, src=2)
        assert objects == ["a", {"b": 2}, None]
        got: list[Any] = [None]
        dist.scatter_object_list(got, ["p", "q", "r"] if rank == 0 else None, src=0)
        assert got == ["pqr"[rank]]

    run_ranks(3, work)


def test_c10d_functional_collectives() -> None:
    def work(rank: int) -> None:
        group = dist.group.WORLD
        tensor = torch.full((4,), float(rank + 1))
        assert functional.all_reduce(tensor, "sum", group).tolist() == [3.0] * 4
        assert functional.all_reduce(tensor, "avg", group).tolist() == [1.5] * 4
        gathered = functional.all_gather_tensor(tensor, 0, group)
        assert gathered.tolist() == [1.0] * 4 + [2.0] * 4
        part = functional.reduce_scatter_tensor(torch.arange(4.0) * (rank + 1), "sum", 0, group)
        assert part.tolist() == ([0.0, 3.0] if rank == 0 else [6.0, 9.0])
        swapped = functional.all_to_all_single(tensor, None, None, group)
        assert swapped.tolist() == [1.0, 1.0, 2.0, 2.0]
        assert functional.broadcast(tensor, 1, group).tolist() == [2.0] * 4
        many = functional.all_reduce_coalesced([tensor, tensor * 2], "sum", group)
        assert [m[0].item() for m in many] == [3.0, 6.0]
        many = functional.all_gather_into_tensor_coalesced([tensor, tensor * 2], group)
        assert [m.sum().item() for m in many] == [12.0, 24.0]
        many = functional.reduce_scatter_tensor_coalesced([tensor, tensor], "sum", [0, 0], group)
        assert [m.tolist() for m in many] == [[3.0, 3.0]] * 2

    run_ranks(2, work)
