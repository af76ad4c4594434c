"""Shadow copies: one whole record at any time, and nothing taken for whole that is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from hpcore.agent.shadow_memory import make_memory
from hpcore.errors import CorruptData
from hpcore.shadow_copies import ShadowCopies, copy_out


@dataclass
class Memory:
    """The agent's memory, and the copies of its ranks."""

    descriptor: int
    opened: list[ShadowCopies] = field(default_factory=list)

    def copies(self, rank: int) -> ShadowCopies:
        self.opened.append(ShadowCopies(os.getpid(), self.descriptor, rank))
        return self.opened[-1]


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory(make_memory())
    yield made
    for copies in made.opened:
        copies.close()
    os.close(made.descriptor)


def state(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [
        torch.rand(1000, 7, generator=generator),
        torch.rand(5, 3, generator=generator).t(),
        torch.zeros(0, 4),
        torch.tensor(step),
        torch.rand(33, generator=generator).to(torch.bfloat16),
    ]


def loaded(copies: ShadowCopies, rank: int, step: int) -> list[Tensor]:
    meta, memory, at = copies.load(rank, step)
    assert meta == {"step": step}
    fresh = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in state(step)]
    copy_out(memory, at, fresh)
    return fresh


def take(copies: ShadowCopies, step: int) -> None:
    copies.take(step, {"step": step}, state(step))
    copies.settle()


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_last_two_steps_of_each_rank_are_there_for_whoever_asks(memory: Memory) -> None:
    first, second = memory.copies(1), memory.copies(2)
    assert first.verified(1) == []
    for step in range(5):
        take(first, step)
        take(second, 10 * step)
    reader = memory.copies(3)
    assert reader.verified(1) == [3, 4]
    assert reader.verified(2) == [30, 40]
    assert reader.verified(3) == []
    for rank, step in ((1, 3), (1, 4), (2, 40)):
        assert same(loaded(reader, rank, step), state(step))


def test_a_record_counts_only_when_it_is_whole(memory: Memory) -> None:
    copies = memory.copies(0)
    take(copies, 1)
    take(copies, 2)
    damaged = next(r for r in copies.records(0) if r.step == 2)
    _, content, at = copies.load(0, 2)
    content[at + 100] ^= 1
    assert copies.verified(0) == [1]
    with pytest.raises(CorruptData, match="rank 0, step 2"):
        copies.load(0, 2)
    copies.memory._write(0, damaged.half, b"HPSHADOW" + bytes(50))  # as if killed while it wrote
    assert [record.step for record in copies.records(0)] == [1]
    take(copies, 3)
    assert copies.verified(0) == [1, 3]


def test_a_copy_that_fails_is_told_and_leaves_the_other_record(memory: Memory) -> None:
    copies = memory.copies(0)
    take(copies, 1)
    copies.take(2, {"not plain": object()}, state(2))
    with pytest.raises(KeyError):
        copies.settle()
    assert copies.verified(0) == [1]
    take(copies, 3)
    assert copies.verified(0) == [1, 3]


def test_records_of_a_given_up_past_are_forgotten(memory: Memory) -> None:
    copies = memory.copies(0)
    take(copies, 6)
    take(copies, 7)
    copies.forget_after(6)
    assert copies.verified(0) == [6]


def test_state_that_grows_gets_more_room(memory: Memory) -> None:
    copies = memory.copies(0)
    for step, size in enumerate((0, 10, 3_000_000)):
        copies.take(step, {}, [torch.full((size,), float(step))])
        copies.settle()
    into = torch.empty(3_000_000)
    _, content, at = copies.load(0, 2)
    copy_out(content, at, [into])
    assert bool((into == 2).all())
    assert os.fstat(memory.descriptor).st_blocks * 512 < 64 << 20, "the rest is not there"
