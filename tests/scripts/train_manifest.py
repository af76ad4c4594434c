"""The script under test with state of every kind: tensor parallel x data parallel, experts that
are plain DTensors, tied weights, optimizer state that is made late, all random generators, plain
and pickled values.

usage: train_manifest.py FOLDER STEPS REPLICAS. REPLICAS 1: each rank holds a part of its own (dp x
tp), 2: two hold each part (replicate x shard x tp, with shards of one). Writes `rank<r>.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from train_small import Points

import hpcore
from hpcore.sharding import local_of


class Block(nn.Module):
    """Two linear layers whose weights are split over the ranks of a tensor-parallel group."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(torch.relu(self.up(x)))
        return out


class Model(nn.Module):
    """The last block is the first one again: tied. `late` has a gradient from step 3 on."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(16), Block(16)])
        self.blocks.append(self.blocks[0])
        self.late = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor, late: bool) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x + self.late(x) if late else x)
        return out


def build(replicas: int) -> tuple[Model, DeviceMesh]:
    if replicas == 1:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        over = mesh["dp"]
    else:
        mesh = init_device_mesh("cpu", (2, 1, 2), mesh_dim_names=("replicate", "dp", "tp"))
        over = mesh["replicate", "dp"]
    torch.manual_seed(0)
    model = Model()
    for block in model.blocks[:2]:
        parallelize_module(block, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    plain = {
        "late": ColwiseParallel(output_layouts=Replicate()),
        "head": RowwiseParallel(input_layouts=Replicate()),
    }
    parallelize_module(model, mesh["tp"], plain)
    for block in model.blocks[:2]:
        fully_shard(block, mesh=over)
    fully_shard(model, mesh=over)
    return model, mesh


def experts_of(mesh: DeviceMesh) -> dict[str, Any]:
    """Expert weights, [expert, in, out]: experts dealt out, or each one cut along its last
    dimension."""
    whole = torch.arange(8.0 * 6 * 5).view(8, 6, 5)
    tp = mesh["tp"]
    dealt = distribute_tensor(whole, tp, [Shard(0)])
    return {"dealt": dealt, "cut": distribute_tensor(-whole, tp, [Shard(2)])}


def digest(tensors: list[Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(local_of(tensor).detach().contiguous().numpy().tobytes())
    return total.hexdigest()


class Odometer:
    """Something that only pickle can send: the user asks for it."""

    def __init__(self) -> None:
        self.driven = complex(0, 1), range(3)


def main(folder: Path, total: int, replicas: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("hpcore")
    every = int(os.environ.get("TEST_SHADOW_EVERY", "0"))
    job = hpcore.Job(global_batch=16, micro_batch=4, seed=3, shadow_every=every)
    model, mesh = build(replicas)
    job.shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    experts, odometer = experts_of(mesh), Odometer()
    own = torch.Generator().manual_seed(5)
    diary: dict[str, Any] = {"losses": [], "draws": [], "set": {1}, "by pair": {(1, "a"): b"x"}}
    alias = torch.zeros(3)
    job.track(model=model, optimizer=optimizer, experts=experts, generator=own, diary=diary)
    job.track(aliased={"one": alias, "other": alias}, odometer=hpcore.Pickled(odometer))
    for step in job.steps(Points(), total=total):
        with step:
            loss_sum, draws = 0.0, 0.0
            for batch in step.micro_batches():
                inputs, targets = batch.data
                noise = torch.rand(1).item() + random.random() + numpy.random.rand()
                out = model(inputs + 1e-3 * noise, step.index >= 3)
                loss = nn.functional.cross_entropy(out, targets) * batch.weight
                loss.backward()
                loss_sum, draws = loss_sum + loss.item(), draws + noise
            drawn = torch.rand(1, generator=own).item()
            sums = step.commit(optimizer, loss=loss_sum / 2, draws=draws)
            for expert in experts.values():
                local_of(expert).mul_(1 + 0.01 * drawn)
            alias.add_(step.index)
            odometer.driven = odometer.driven[0] * 2, range(step.index)
            diary["losses"].append(sums["loss"])
            diary["draws"].append([sums["draws"], drawn])
            diary["set"].add(step.index)
    state = [*model.parameters(), *experts.values(), alias]
    state += [v for p in optimizer.state.values() for _, v in sorted(p.items())]
    result = {
        "digest": digest(state),
        "tensors": len(state),
        "diary": repr(diary),
        "odometer": repr(odometer.driven),
        "next": torch.rand(1, generator=own).item(),
    }
    partial = folder / f".rank{job.rank}"
    partial.write_text(json.dumps({"result": result, "about": {}}))
    partial.rename(folder / f"rank{job.rank}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
