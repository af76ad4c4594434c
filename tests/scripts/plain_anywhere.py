"""A script as people have them, with `hpcore` for a backend, whatever starts it.

Arguments: the init method ("-" for the default), then words: `spawn` starts its two ranks itself,
`die` ends rank 1 by SIGKILL and rank 0 by the error that this gives, `wait` sleeps at the end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def main(rank: int, world_size: int, init_method: str) -> None:
    dist.init_process_group(
        "hpcore",
        init_method=None if init_method == "-" else init_method,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=20),
    )
    tensor = torch.full((1000,), float(rank + 1))
    dist.all_reduce(tensor)
    dist.new_group([0, 1])
    objects: list[object] = [None] * world_size
    dist.all_gather_object(objects, rank)
    served = dist.group.WORLD._get_backend(torch.device("cpu")).name()
    print(f"rank {rank} of {world_size}: sum {tensor[0].item()} {objects} by {served}", flush=True)
    if "die" in sys.argv:
        dist.barrier()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(tensor)
    if "wait" in sys.argv:
        time.sleep(600)
    dist.destroy_process_group()


if __name__ == "__main__":
    if "spawn" in sys.argv:
        mp.spawn(main, (2, sys.argv[1]), nprocs=2)
    else:
        main(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), sys.argv[1])
