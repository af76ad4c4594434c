"""What a rank holds of a DTensor, of every placement, and DTensors put together again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from c10d_ranks import run_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.placement_types import _StridedShard

from hpcore.errors import MismatchError, Unsupported
from hpcore.layout import TensorSpec
from hpcore.sharding import Sharding, copies, mesh_key, part_held
from hpcore.tracked import TrackedState, capture

pytestmark = pytest.mark.torch


PLACEMENTS: list[tuple[tuple[Placement, ...], list[str], int]] = [
    ((Replicate(), Replicate()), ["", "", "", ""], 4),
    ((Shard(0), Replicate()), ["0", "0", "1", "1"], 2),
    ((Replicate(), Shard(1)), ["0", "1", "0", "1"], 2),
    ((Shard(0), Shard(0)), ["0.0", "0.1", "1.0", "1.1"], 1),
    ((_StridedShard(0, split_factor=2), Shard(0)), ["0.0", "0.1", "1.0", "1.1"], 1),
]
"""Of a mesh of 2 x 2 ranks: placements, which part each rank holds, ranks that hold the same."""


def test_sharding_of_every_placement_survives_its_text() -> None:
    def work(rank: int) -> list[Any]:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        whole = torch.arange(42.0).view(7, 6)
        told = []
        for placements, parts, same in PLACEMENTS:
            if any(isinstance(placement, _StridedShard) for placement in placements):
                local = torch.zeros(2 if rank else 1, 6)
                tensor = DTensor.from_local(
                    local, mesh, placements, run_check=False, shape=whole.shape, stride=(6, 1)
                )
            else:
                tensor = distribute_tensor(whole, mesh, placements)
            assert part_held(tensor) == parts[rank]
            assert copies(tensor, 4) == same
            text = str(Sharding.of("x", tensor))
            local = tensor.to_local()
            again: Any = Sharding.parse(text).wrap("x", local, {mesh_key(mesh): mesh})
            assert again.placements == tensor.placements
            assert again.shape == tensor.shape
            assert again.stride() == tensor.stride()
            assert torch.equal(again.to_local(), local)
            spec = TensorSpec.of("x", tensor)
            assert spec.fits(again)
            assert spec.fits(local) is False
            told.append((text, str(spec)))
        with pytest.raises(MismatchError, match="a device mesh that this rank does not have"):
            Sharding.parse(text).wrap("x", local, {})
        partial = DTensor.from_local(torch.ones(2), mesh, [Partial(), Replicate()])
        with pytest.raises(Unsupported, match="loss is a DTensor with placement"):
            Sharding.of("loss", partial)
        return told

    told = run_ranks(4, work)
    assert all(one == told[0] for one in told), "what ranks compare does not depend on the rank"


def test_tracked_dtensors_of_the_users_are_rolled_back_and_told_apart() -> None:
    def work(rank: int) -> Any:
        from hpcore.rollback import Shadow

        mesh = init_device_mesh("cpu", (4,))
        average = distribute_tensor(torch.arange(10.0), mesh, [Shard(0)])
        plain = torch.ones(3)
        state = TrackedState()
        state.add("average", average)
        state.add("ema", {"weights": distribute_tensor(torch.ones(6), mesh, [Shard(0)])})
        state.add("plain", plain)
        shadow = Shadow(state)
        shadow.refresh()
        holder = next(p for p in state.fluid if p.name == "ema").value  # type: ignore[attr-defined]
        before = average.full_tensor().clone()
        average.mul_(2)
        plain.add_(1)
        holder["weights"] = distribute_tensor(torch.zeros(8), mesh, [Shard(0)])
        shadow.restore()
        assert torch.equal(average.full_tensor(), before)
        assert torch.equal(plain, torch.ones(3))
        assert isinstance(holder["weights"], DTensor)
        assert torch.equal(holder["weights"].full_tensor(), torch.ones(6))
        captured = capture(state.fluid)
        assert captured.tensors[0] is average.to_local() or captured.tensors[0].shape[0] <= 3
        return state.part(), state.digest()

    told = run_ranks(4, work)
    assert len({part for part, _ in told}) == 4
    assert len({digest for _, digest in told}) == 1
