"""Exact gradients over a communicator: ranks are threads, and any deal of micro-batches gives the
same bits."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hpcore import _core
from hpcore.errors import InvalidArgument, Unsupported
from hpcore.exact import ExactGradients

MICRO_BATCHES = 7


class Model(nn.Module):
    """One layer is used by some micro-batches only, one by none, one is in bfloat16, one does not
    lie in its usual order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.usual = nn.Linear(9, 40)
        self.seldom = nn.Linear(9, 40, bias=False)
        self.never = nn.Linear(3, 3)
        self.narrow = nn.Linear(40, 33).bfloat16()
        self.turned = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)

    def loss(self, number: int) -> torch.Tensor:
        """The first and the last are huge, and cancel each other to the last bit."""
        if number in (0, MICRO_BATCHES - 1):
            return self._loss(1) * (2.0**40 if number == 0 else -(2.0**40))
        return self._loss(number)

    def _loss(self, number: int) -> torch.Tensor:
        inputs = torch.sin(torch.arange(18.0).view(2, 9) * (number + 1)) * 2.0 ** (
            number * 3 % 7 * 3 - 9
        )
        hidden = self.usual(inputs)
        if number in (2, 5):
            hidden = hidden + self.seldom(inputs)
        out = self.narrow(hidden.bfloat16()).float().square().mean()
        return out + self.turned(inputs.view(2, 1, 3, 3).repeat(1, 2, 1, 1)).square().sum()


def run_rank(communicator: Any, model: Model, deal: range) -> list[torch.Tensor | None]:
    gradients = ExactGradients()
    for name, parameter in model.named_parameters():
        gradients.add(name, parameter)
    gradients.prepare()
    for step in range(2):  # what is kept of a step does not reach the next one
        gradients.clear()
        for number in deal if step else (2, 0):
            model.loss(number).backward()
            gradients.end_micro_batch()
            assert all(p.grad is None for p in model.parameters())
    own = torch.tensor([gradients.unfit(), *gradients.flags()], dtype=torch.float64)
    communicator.all_reduce([(own.data_ptr(), own.numel())], "float64", "sum", 60.0)
    unfit, *holders = own.tolist()
    assert unfit > 0 or len(deal) < MICRO_BATCHES
    gradients.reduce(communicator, holders, unfit)
    return [parameter.grad for parameter in model.parameters()]


def run(ranks: int, deal: list[range]) -> list[list[torch.Tensor | None]]:
    group = _core.SharedGroup.create(ranks)
    results: list[Any] = [None] * ranks
    models = [Model() for _ in range(ranks)]

    def body(rank: int) -> None:
        try:
            with _core.Communicator.over_group(group, 1, rank) as communicator:
                results[rank] = run_rank(communicator, models[rank], deal[rank])
        except BaseException as error:
            results[rank] = error
            group.revoke(1)

    threads = [threading.Thread(target=body, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120.0)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def bits(gradients: list[torch.Tensor | None]) -> list[Any]:
    return [
        None if g is None else (g.dtype, g.stride(), g.reshape(-1).view(torch.uint8).tolist())
        for g in gradients
    ]


def test_any_deal_of_micro_batches_gives_the_same_bits() -> None:
    def even(ranks: int) -> list[range]:
        cuts = [MICRO_BATCHES * r // ranks for r in range(ranks + 1)]
        return [range(cuts[r], cuts[r + 1]) for r in range(ranks)]

    alone = bits(run(1, even(1))[0])
    assert sum(found is None for found in alone) == 2  # never's weight and bias
    deals = [even(ranks) for ranks in (2, 3, 5, 9)]  # of nine ranks two have no work
    deals += [[range(0), range(7)], [range(6, 7), range(6)], [range(1, 7), range(1)]]
    for deal in deals:
        for found in run(len(deal), deal):
            assert bits(found) == alone, deal


def test_sum_is_the_real_one_rounded() -> None:
    """One parameter against its micro-batches' own gradients."""
    model, terms = Model(), []
    for number in range(MICRO_BATCHES):
        model.zero_grad()
        model.loss(number).backward()
        assert model.usual.weight.grad is not None
        terms.append(model.usual.weight.grad.reshape(-1).double().tolist())
    wanted = np.array([_core.exact_sum(column) for column in zip(*terms, strict=True)], np.float32)
    found = run(2, [range(4), range(4, 7)])[0][0]
    assert found is not None and found.reshape(-1).numpy().tobytes() == wanted.tobytes()
    plain = torch.tensor(terms).float().sum(dim=0).numpy()
    assert plain.tobytes() != wanted.tobytes()


def test_gradients_that_cannot_be_summed_exactly_are_refused() -> None:
    gradients = ExactGradients()
    gradients.add("wide", nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    with pytest.raises(Unsupported, match=r"wide is torch\.float64 on cpu"):
        gradients.prepare()
    gradients, parameter = ExactGradients(), nn.Parameter(torch.zeros(2))
    gradients.add("late", parameter)
    gradients.prepare()
    parameter.sum().backward()
    with pytest.raises(InvalidArgument, match="late has a gradient that belongs to no micro-batch"):
        gradients.flags()
