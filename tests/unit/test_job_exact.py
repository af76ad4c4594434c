"""Exact mode in a world of one: what a script is told, and what buffers and random numbers are."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

import hpcore
from hpcore.errors import InvalidArgument, Unsupported


class Counting(nn.Module):
    """Its buffer says how often a forward ran since the step began."""

    seen: torch.Tensor
    large: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("large", torch.zeros(40_000))
        self.begun_with: list[float] = []

    def forward(self, inputs: torch.Tensor, number: int) -> torch.Tensor:
        self.begun_with.append(self.seen.item())
        self.seen += 1 + number
        if number:
            self.large += 1
        out: torch.Tensor = self.layer(inputs)
        return out


def make(**options: Any) -> tuple[hpcore.Job, Counting, torch.optim.Optimizer]:
    job = hpcore.Job(global_batch=8, micro_batch=2, exact=True, **options)
    model = job.replicate(Counting())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    job.track(optimizer=optimizer)
    return job, model, optimizer


def test_each_micro_batch_begins_with_the_buffers_of_the_boundary() -> None:
    job, model, optimizer = make()
    for step in job.steps(total=3):
        with step:
            for batch in step.micro_batches():
                model(torch.ones(2, 2), batch.index).sum().backward()
            step.commit(optimizer)
        assert model.seen.item() == step.index + 1  # what micro-batch 0 made of it
        assert model.begun_with[-4:] == [float(step.index)] * 4
        assert not model.large.any()  # micro-batch 0 left it alone


def test_random_numbers_outside_of_micro_batches_are_the_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def draws(rank: str) -> list[float]:
        job, model, optimizer = make(seed=5)
        job._loop.world.rank = int(rank)
        found = []
        for step in job.steps(total=2):
            with step:
                found.append(random.random())
                for batch in step.micro_batches():
                    model(torch.ones(2, 2), batch.index).sum().backward()
                found.append(torch.rand(()).item())
                step.commit(optimizer)
        return found

    assert draws("0") == draws("3") and len(set(draws("0"))) == 4


def test_script_is_told_what_would_depend_on_the_number_of_ranks() -> None:
    job, model, optimizer = make()
    with (
        pytest.raises(InvalidArgument, match="pass a list with one value"),
        next(iter(job.steps(total=1))) as step,
    ):
        for batch in step.micro_batches():
            model(torch.ones(2, 2), batch.index).sum().backward()
        step.commit(optimizer, loss=0.5)
    job, model, optimizer = make()
    with (
        pytest.raises(InvalidArgument, match="belongs to no micro-batch"),
        next(iter(job.steps(total=1))) as step,
    ):
        total = torch.zeros(())
        for batch in step.micro_batches():
            total = total + model(torch.ones(2, 2), batch.index).sum()
        total.backward()
        step.commit(optimizer)
    job, *_ = make()
    with pytest.raises(Unsupported, match="exact=True with a sharded model"):
        job.shard(nn.Linear(1, 1))


def test_clipping_and_scaler_work_on_the_exact_sum() -> None:
    job, model, optimizer = make()
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    job.track(scaler=scaler)
    for step in job.steps(total=2):
        with step:
            for batch in step.micro_batches():
                out = model(torch.full((2, 2), 1.0 + batch.index), batch.index).sum()
                scaler.scale(out).backward()
            step.commit(optimizer, scaler=scaler, clip_grad_norm=1.0)
        assert step.grad_norm == pytest.approx((20.0**2 * 2 + 8.0**2) ** 0.5)
