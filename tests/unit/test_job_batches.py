"""What a step is made of, whatever the number of ranks; randomness by key."""

from __future__ import annotations

import random

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcore.batches import Batches, gather
from hpcore.errors import InvalidArgument
from hpcore.randomness import seed_micro_batch, seed_step


class Numbers:
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index * 10)


@given(st.integers(1, 40), st.integers(1, 12))
def test_micro_batches_are_dealt_once_and_evenly(count: int, world_size: int) -> None:
    batches = Batches(count * 2, 2, 0)
    dealt = [batches.of_rank(rank, world_size) for rank in range(world_size)]
    assert [index for part in dealt for index in part] == list(range(count))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert len(dealt[batches.first_with_work(world_size)]) > 0


@given(st.integers(1, 50), st.integers(0, 5))
def test_every_epoch_has_every_sample_once(size: int, seed: int) -> None:
    batches, data = Batches(6, 3, seed), Numbers(size)
    steps = -(-3 * size // 6)
    order = [s for step in range(steps) for m in (0, 1) for s in batches.samples(data, step, m)]
    for epoch in range(3):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_samples_depend_on_the_seed_and_not_on_what_was_asked_before() -> None:
    data = Numbers(1000)
    one, other = Batches(8, 4, 1), Batches(8, 4, 1)
    late = one.samples(data, 300, 1)
    other.samples(data, 0, 0)
    assert other.samples(data, 300, 1) == late != Batches(8, 4, 2).samples(data, 300, 1)
    assert one.samples(None, 2, 1) == [20, 21, 22, 23]


def test_batches_are_collated_from_items() -> None:
    assert gather(Numbers(9), [3, 1]).tolist() == [30, 10]
    assert gather(None, [3, 1]) is None


@pytest.mark.parametrize(("whole", "part", "seed"), [(0, 1, 0), (8, 3, 0), (8, 0, 0), (8, 4, -1)])
def test_sizes_that_do_not_fit_are_refused(whole: int, part: int, seed: int) -> None:
    with pytest.raises(InvalidArgument):
        Batches(whole, part, seed)


def _draw() -> tuple[float, float, float]:
    return random.random(), float(numpy.random.random()), float(torch.rand(()))


def test_randomness_is_a_function_of_its_key() -> None:
    draws = []
    for seed, step, index in [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3), (1, 2, 3)]:
        seed_micro_batch(seed, step, index)
        draws.append(_draw())
    seed_step(1, 2, 3)
    draws.append(_draw())
    assert draws[0] == draws[4]
    assert len({draw[i] for draw in draws for i in range(3)}) == 15
