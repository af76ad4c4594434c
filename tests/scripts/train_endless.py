"""Trains a tiny model until it is stopped: for tests that count what recoveries leave behind."""

from __future__ import annotations

import time

import torch
from torch import nn

import hpcore


def main() -> None:
    torch.set_num_threads(1)
    job = hpcore.Job(global_batch=8, micro_batch=2, seed=1)
    model = job.replicate(nn.Linear(64, 64))
    optimizer = torch.optim.AdamW(model.parameters())
    job.track(model=model, optimizer=optimizer)
    for step in job.steps(total=1 << 30):
        with step:
            for batch in step.micro_batches():
                inputs = torch.randn(len(batch.samples), 64)
                (model(inputs).square().mean() * batch.weight).backward()
            step.commit(optimizer)
            time.sleep(0.002)  # leaves the cores to replacements


if __name__ == "__main__":
    main()
