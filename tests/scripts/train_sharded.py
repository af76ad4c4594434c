"""The script under test with a sharded model: FSDP2 or HSDP, AdamW, BatchNorm, clipping.

usage: train_sharded.py FOLDER STEPS [REPLICAS]. REPLICAS 1: plain FSDP, more: HSDP, 0: not sharded
at all. Writes `rank<r>.json` into the folder: losses of
all steps, a digest of the rank's shards and optimizer state, and what tells workers apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from train_small import Points

import hpcore
from hpcore.sharding import local_of


def build_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Linear(16, 33), nn.BatchNorm1d(33), nn.ReLU()),
        nn.Sequential(nn.Linear(33, 29), nn.ReLU(), nn.Dropout(0.2)),
        nn.Linear(29, 5),  # uneven: ranks' shards are of different sizes
    )


def digest(tensors: list[torch.Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(local_of(tensor).detach().reshape(-1).contiguous().numpy().tobytes())
    return total.hexdigest()


def pause(folder: Path, rank: int, step: int) -> None:
    """In step TEST_PAUSE each rank says who it is, and waits for a file named go."""
    if os.environ.get("TEST_PAUSE") != str(step) or (folder / "go").exists():
        return
    (folder / f".paused{rank}").write_text(str(os.getpid()))
    (folder / f".paused{rank}").rename(folder / f"paused{rank}")
    while not (folder / "go").exists():
        time.sleep(0.005)


def main(folder: Path, total: int, replicas: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("hpcore")
    size = dist.get_world_size()
    shape, names = ((size,), ("shard",))
    if replicas > 1:
        shape, names = (replicas, size // replicas), ("replicate", "shard")
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    micro_batch = int(os.environ.get("TEST_MICRO_BATCH", "4"))
    every = int(os.environ.get("TEST_SHADOW_EVERY", "0"))
    job = hpcore.Job(
        global_batch=32,
        micro_batch=micro_batch,
        seed=3,
        ledger=True,
        shadow_every=every,
        compare_every=int(os.environ.get("TEST_COMPARE_EVERY", "0")),
        checkpoint_dir=os.environ.get("TEST_CHECKPOINT_DIR", ""),
        checkpoint_every=2 if "TEST_CHECKPOINT_DIR" in os.environ else 0,
        on_corruption=os.environ.get("TEST_ON_CORRUPTION", "stop"),
    )
    model = build_model()
    if replicas:
        for layer in model:
            fully_shard(layer, mesh=mesh)
        job.shard(fully_shard(model, mesh=mesh))
    else:
        job.replicate(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.7)
    corrupt = json.loads(os.environ.get("TEST_CORRUPT", "[]"))  # [rank, step]: flips a bit
    diary: dict[str, list[float]] = {"losses": [], "norms": [], "seen": []}
    job.track(model=model, optimizer=optimizer, scheduler=scheduler, diary=diary)
    for step in job.steps(Points(), total=total):
        with step:
            diary["seen"].append(step.index)  # rolls back when the step is discarded
            pause(folder, job.rank, step.index)
            if corrupt == [job.rank, step.index] and step.attempt == 1:
                local_of(next(model.parameters())).detach().view(torch.int32)[0, 0] ^= 1
            job.rank_local["steps"] = job.rank_local.get("steps", 0) + 1
            loss_sum = 0.0
            for batch in step.micro_batches():
                inputs, targets = batch.data
                loss = nn.functional.cross_entropy(model(inputs), targets) * batch.weight
                loss.backward()
                loss_sum += loss.item()
            sums = step.commit(optimizer, clip_grad_norm=1.0, loss=loss_sum)
            scheduler.step()
            diary["losses"].append(sums["loss"])
            diary["norms"].append(step.grad_norm)
    state = [*model.parameters(), *model.buffers()]
    state += [v for p in optimizer.state.values() for _, v in sorted(p.items())]
    result = {
        "digest": digest(state),
        "sizes": [list(local_of(p).shape) for p in model.parameters()],
        "diary": diary,
        "rate": scheduler.get_last_lr(),
        "local": job.rank_local,
        "world_size": job.world_size,
    }
    about = {"pid": os.getpid(), "generation": job.generation}
    partial = folder / f".rank{job.rank}"
    partial.write_text(json.dumps({"result": result, "about": about}))
    partial.rename(folder / f"rank{job.rank}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
