"""The loop without an agent: a world of one. Mistakes in the script are told clearly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hpcore
from hpcore.errors import InvalidArgument, Unsupported


def _job(**options: Any) -> tuple[hpcore.Job, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    job = hpcore.Job(global_batch=8, micro_batch=2, **options)
    model = job.replicate(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    job.track(optimizer=optimizer)
    return job, model, optimizer


def _loss(model: nn.Module, batch: hpcore.MicroBatch) -> torch.Tensor:
    return model(torch.tensor(batch.samples).float().unsqueeze(1).expand(-1, 2)).square().mean()


def _run(total: int, seed: int = 0) -> list[float]:
    job, model, optimizer = _job(seed=seed)
    losses = []
    for step in job.steps(total=total):
        with step:
            loss = 0.0
            for batch in step.micro_batches():
                part = _loss(model, batch) * step.weight(batch)
                part.backward()
                loss += part.item()
            losses.append(step.commit(optimizer, loss=loss, count=1)["loss"])
        assert job.steps_done == step.index + 1 and step.attempt == 1
    assert (job.rank, job.world_size, job.generation, job.rehearsing) == (0, 1, 0, False)
    return losses


def test_loop_runs_alone_and_the_same_twice() -> None:
    losses = _run(5)
    assert len(losses) == 5 and losses[-1] < losses[0]
    assert _run(5) == losses


def test_step_sees_the_whole_global_batch_in_order() -> None:
    job, _, optimizer = _job()
    seen = []
    for step in job.steps(total=2):
        with step:
            seen += [(b.index, b.samples, b.weight) for b in step.micro_batches()]
            step.commit(optimizer)
    assert [s for _, samples, _ in seen for s in samples] == list(range(16))
    assert [index for index, _, _ in seen] == [0, 1, 2, 3] * 2
    assert {weight for _, _, weight in seen} == {0.25}


def test_parameter_without_gradient_keeps_none() -> None:
    job, model, optimizer = _job()
    for step in job.steps(total=2):
        with step:
            model[0](torch.ones(1, 2)).sum().backward()
            step.commit(optimizer)
            assert model[2].weight.grad is None and model[0].weight.grad is not None
    assert model[2].weight not in optimizer.state


def test_gradients_are_clipped_after_unscaling() -> None:
    job, model, optimizer = _job()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = [p.detach().clone() for p in model.parameters()]
    for step in job.steps(total=1):
        with step:
            for batch in step.micro_batches():
                scaler.scale(_loss(model, batch) * batch.weight).backward()
            step.commit(optimizer, scaler=scaler, clip_grad_norm=1e-3)
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            assert float(norm) == pytest.approx(1e-3, rel=1e-3)
            assert step.grad_norm is not None and 1e-3 < step.grad_norm < 512
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_step_with_infinite_gradients_is_skipped_and_the_scale_backs_off() -> None:
    job, model, optimizer = _job()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = [p.detach().clone() for p in model.parameters()]
    for step in job.steps(total=1):
        with step:
            (scaler.scale(model[0](torch.ones(1, 2)).sum()) * float("inf")).backward()
            step.commit(optimizer, scaler=scaler)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert scaler.get_scale() == 512.0


def test_exception_leaves_a_job_without_agent() -> None:
    job, _, _ = _job()
    with pytest.raises(ZeroDivisionError):
        for step in job.steps(total=1):
            with step:
                _ = 1 / 0


def _twice(step: hpcore.Step, optimizer: Any) -> None:
    with step:
        step.commit(optimizer)
        step.commit(optimizer)


def _never(step: hpcore.Step, optimizer: Any) -> None:
    with step:
        pass


def _outside(step: hpcore.Step, optimizer: Any) -> None:
    step.commit(optimizer)


def _afterwards(step: hpcore.Step, optimizer: Any) -> None:
    with step:
        step.commit(optimizer)
    step.commit(optimizer)


def _again(step: hpcore.Step, optimizer: Any) -> None:
    with step:
        step.commit(optimizer)
    with step:
        pass


def _not_entered(step: hpcore.Step, optimizer: Any) -> None:
    pass


def _untracked(step: hpcore.Step, optimizer: Any) -> None:
    with step:
        step.commit(torch.optim.SGD(optimizer.param_groups[0]["params"]))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (_twice, "step.commit: step 0 is committed already"),
        (_never, "step 0 ended without commit"),
        (_outside, "step.commit: step 0 was not entered"),
        (_afterwards, "step.commit: step 0 has ended"),
        (_again, "step 0 was entered before"),
        (_not_entered, "step 0 was not run"),
        (_untracked, "SGD is not tracked"),
    ],
)
def test_misused_step_is_told_clearly(body: Callable[..., None], words: str) -> None:
    job, _, optimizer = _job()
    with pytest.raises(InvalidArgument, match=words):
        for step in job.steps(total=2):
            body(step, optimizer)


def test_optimizer_over_foreign_parameters_is_refused() -> None:
    job, _, _ = _job()
    other = torch.optim.SGD(nn.Linear(1, 1).parameters())
    job.track(other=other)
    with pytest.raises(InvalidArgument, match="parameter 0 of group 0 of SGD"):
        for step in job.steps(total=1):
            with step:
                step.commit(other)


def test_sparse_gradients_are_refused_by_name() -> None:
    job = hpcore.Job(global_batch=2, micro_batch=2)
    model = job.replicate(nn.Embedding(4, 2, sparse=True))
    optimizer = torch.optim.SGD(model.parameters())
    job.track(optimizer=optimizer)
    with pytest.raises(Unsupported, match=r"weight has a torch\.sparse_coo gradient"):
        for step in job.steps(total=1):
            with step:
                model(torch.tensor([1])).sum().backward()
                step.commit(optimizer)


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda job: job.steps(total=1), "job.steps after job.steps"),
        (lambda job: job.track(x={}), "job.track after job.steps"),
        (lambda job: job.replicate(nn.Linear(1, 1)), "job.replicate after job.steps"),
    ],
)
def test_job_is_fixed_when_its_loop_begins(misuse: Callable[..., Any], words: str) -> None:
    job, _, _ = _job()
    job.steps(total=1)
    with pytest.raises(InvalidArgument, match=words):
        misuse(job)


def test_arguments_of_the_loop_are_checked_at_the_call() -> None:
    job, _, _ = _job()
    with pytest.raises(InvalidArgument, match="total must not be negative"):
        job.steps(total=-1)
    with pytest.raises(InvalidArgument, match="the dataset is empty"):
        job.steps([], total=1)


def test_import_needs_neither_torch_nor_natives() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['hpcore._core'] = None\n"
        "import hpcore; assert 'Job' in dir(hpcore) and hpcore.InvalidArgument"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "python"})
