"""A torchrun script with the hpcore backend: prints what it computed and which sockets it has.

Arguments: the backend; `twice` makes the default group two times; `die` kills rank 1 in between.
"""

from __future__ import annotations

import os
import signal
import sys

import torch
import torch.distributed as dist

from hpcore import errors


def listening() -> list[str]:
    """Sockets of this process that listen."""
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            fields = [line.split() for line in lines][1:]
        found += [f[1] for f in fields if f[3] == "0A" and f[9] in inodes]
    return found


def one_group(backend: str, init_method: str | None) -> None:
    dist.init_process_group(backend, init_method=init_method)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    tensor = torch.full((1000,), float(rank + 1))
    dist.all_reduce(tensor)
    dist.new_group([0, world_size - 1])
    objects = [None] * world_size
    dist.all_gather_object(objects, rank)
    print(f"sum {tensor[0].item()} objects {objects} listening {listening()}")
    if "die" in sys.argv:
        dist.barrier()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            dist.all_reduce(tensor)
            print("no error")
        except errors.RosterChanged:
            print("RosterChanged")
    dist.destroy_process_group()


def main() -> None:
    backend = sys.argv[1]
    one_group(backend, None)
    if "twice" in sys.argv:
        one_group(backend, "hpcore://")


if __name__ == "__main__":
    main()
