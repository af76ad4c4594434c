"""A torchrun script as they come: DDP over gloo, nothing of hpcore. Dies in rank 1 if told to."""

from __future__ import annotations

import os
import signal
import sys

import torch
import torch.distributed as dist
from torch import nn


def main() -> None:
    dist.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 4) * (dist.get_rank() + 1)).sum().backward()
        if step == 1 and dist.get_rank() == 1 and "die" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.step()
    weight = sum(parameter.sum().item() for parameter in model.parameters())
    print(f"trained {dist.get_world_size()} {weight:.6f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
