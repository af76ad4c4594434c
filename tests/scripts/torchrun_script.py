"""A script as written for torchrun: nothing of hpcore but the backend's name.

Trains with DDP and FSDP2 over the default group and says what it saw. With `die` in the arguments
rank 1 is killed after DDP's first steps, and the others say what their next collective raised.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel


def listening() -> list[str]:
    """Inodes of this process's listening TCP sockets."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/self/net/{table}") as lines:
            inodes |= {row.split()[9] for row in list(lines)[1:] if row.split()[3] == "0A"}
    held = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(f"/proc/self/fd/{fd}"))
    return [inode for inode in inodes if f"socket:[{inode}]" in held]


def train(model: nn.Module, rank: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        torch.manual_seed(rank * 10 + step)
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def survive(odd: dist.ProcessGroup) -> None:
    group = odd if dist.get_rank() else None
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        dist.all_reduce(torch.ones(1), group=group)
    except Exception as error:
        print(f"raised {type(error).__name__}", flush=True)
        raise


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("hpcore")
    rank = dist.get_rank()
    odd = dist.new_group([1, 2])
    ddp = DistributedDataParallel(nn.Linear(8, 8))
    train(ddp, rank)
    weights = torch.cat([p.detach().flatten() for p in ddp.parameters()])
    gathered = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, weights)
    print(f"equal {all(torch.equal(one, weights) for one in gathered)}", flush=True)
    print(f"listening {listening()}", flush=True)
    if "die" in sys.argv:
        survive(odd)
    sharded = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    fully_shard(sharded)
    train(sharded, rank)
    objects: list[int | None] = [None] * dist.get_world_size()
    dist.all_gather_object(objects, rank)
    dist.destroy_process_group()
    print(f"objects {objects}", flush=True)


if __name__ == "__main__":
    main()
