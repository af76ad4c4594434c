"""Mistakes of a script, one by name. usage: train_mistaken.py FOLDER STEPS, mistake in MISTAKE."""

from __future__ import annotations

import os
import sys

import torch
from torch import nn

import hpcore

MISTAKE = os.environ["MISTAKE"]


def main(total: int) -> None:
    torch.manual_seed(0)
    job = hpcore.Job(global_batch=8, micro_batch=2)
    odd = job.rank == 1
    width = 5 if MISTAKE == "layout" and odd else 4
    model = job.replicate(nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1)))
    optimizer = torch.optim.AdamW(model.parameters())
    job.track(model=model, optimizer=optimizer)
    for step in job.steps(total=total):
        with step:
            for _ in step.micro_batches():
                model(torch.ones(1, 3)).sum().backward()
            if MISTAKE == "bug" and step.index == 2 and odd:
                raise ValueError(f"a bug in step {step.index}, attempt {step.attempt}")
            if MISTAKE == "late bug" and step.index == 2:
                step.commit(optimizer, y=1.0)
                raise ValueError("a bug after the commit")
            more = {"z": 1.0} if MISTAKE == "more sums" and odd else {}
            step.commit(
                optimizer, **({"x": 1.0} if MISTAKE == "sums" and odd else {"y": 1.0, **more})
            )
            if MISTAKE == "twice" and step.index == 1:
                step.commit(optimizer)
    if MISTAKE == "after" and odd:
        raise ValueError("a bug after the loop")


if __name__ == "__main__":
    main(int(sys.argv[2]))
