"""Leaves the loop early, on all ranks. usage: train_break.py FOLDER STEPS"""

from __future__ import annotations

import sys

import torch
from torch import nn

import hpcore


def main(total: int) -> None:
    job = hpcore.Job(global_batch=4, micro_batch=2)
    model = job.replicate(nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    job.track(optimizer=optimizer)
    ranks = 0.0
    for step in job.steps(total=1_000_000):
        with step:
            for batch in step.micro_batches():
                (model(torch.ones(1, 3)).sum() * batch.weight).backward()
            ranks = step.commit(optimizer, ranks=1)["ranks"]
        if job.steps_done == total:
            break
    print(f"left after {job.steps_done} steps with {ranks} ranks", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[2]))
