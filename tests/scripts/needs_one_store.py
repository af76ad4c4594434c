"""Asks for groups of torch.distributed: by itself (TEST_NEEDS=init), or for a sharded model."""

from __future__ import annotations

import os

import torch.distributed as dist
from torch import nn

import hpcore

if __name__ == "__main__":
    if os.environ["TEST_NEEDS"] == "init":
        dist.init_process_group("hpcore")
    else:
        job = hpcore.Job(global_batch=4, micro_batch=2)
        job.shard(nn.Linear(2, 2))
