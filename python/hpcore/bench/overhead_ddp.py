"""The demo's training in plain PyTorch: DDP over Gloo, under torchrun. The contender of `hpcore
bench overhead`.

    torchrun --nproc-per-node 4 overhead_ddp.py TRAIN_TEXT DATA STEPS OUT

Same model, same samples, same micro-batches, same optimizer and schedule as examples/train_text.py;
rank 0 writes the time of each step's end to OUT.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hpcore.dataset import MappedDataset

GLOBAL_BATCH, MICRO_BATCH, SEED = 64, 4, 7
WIDTH, LAYERS, CONTEXT, DROPOUT = 128, 4, 128, 0.1


def load(path: str) -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("train_text", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Trains; rank 0 writes nanoseconds as one JSON list."""
    script, path, total, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(SEED)
    model = DistributedDataParallel(load(script).Transformer(WIDTH, LAYERS, CONTEXT, DROPOUT))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    data = MappedDataset(path, sequence=CONTEXT)
    order = data.order(SEED, 0)
    count = GLOBAL_BATCH // MICRO_BATCH
    own = range(count * rank // size, count * (rank + 1) // size)
    stamps = []
    for step in range(total):
        optimizer.zero_grad()
        loss_sum = torch.zeros(())
        for index in own:
            first = step * GLOBAL_BATCH + index * MICRO_BATCH
            batch = data.batch([order(first + i) for i in range(MICRO_BATCH)])
            last = index == own[-1]
            with contextlib.nullcontext() if last else model.no_sync():
                loss = model(batch) * (size / count)  # DDP takes the mean over ranks
                loss.backward()
            loss_sum += loss.detach() / size
        dist.all_reduce(loss_sum)
        optimizer.step()
        schedule.step()
        stamps.append(time.monotonic_ns())
    if rank == 0:
        Path(out).write_text(json.dumps({"ns": stamps, "loss": loss_sum.item()}))
    dist.barrier()  # not timed: nobody takes its sockets away while another still uses them
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
