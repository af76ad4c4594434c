"""The order is one, whoever reads it: world sizes, changes of them, workers, frameworks, states."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from dataset_files import token_file
from torch.utils.data import DataLoader

from hpcore.batches import Batches
from hpcore.dataset import BatchLoader, Cursor, MappedDataset, Mixture, Samples
from hpcore.errors import CorruptData, InvalidArgument, MismatchError

GLOBAL, MICRO = 24, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MappedDataset:
    path, _ = token_file(tmp_path_factory.mktemp("loaders"), 20_001)
    return MappedDataset(path, 20)  # 1000 samples


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory, data: MappedDataset) -> Mixture:
    folder = tmp_path_factory.mktemp("mixture")
    other = MappedDataset(token_file(folder, 3000, name="other.hpd")[0], 20)
    return Mixture([data, other], curriculum=[(0, [3, 1]), (5, [1, 1])], global_batch=GLOBAL)


def ranks_of_step(data: Samples, step: int, world_size: int) -> list[torch.Tensor]:
    """What all ranks yield for a step, rank after rank."""
    found: list[torch.Tensor] = []
    for rank in range(world_size):
        loader = BatchLoader(
            data, GLOBAL, micro_batch=MICRO, seed=5, rank=rank, world_size=world_size
        )
        loader.step = step
        found += [loader.micro_batch_of(step, index) for index in range(len(loader.mine))]
    return found


@pytest.mark.parametrize("kind", ["data", "mixture", "part", "map"])
def test_global_order_is_equal_for_world_sizes_1_to_13(
    kind: str, data: MappedDataset, mixture: Mixture
) -> None:
    sources: dict[str, Samples] = {"data": data, "mixture": mixture}
    sources["part"] = data.split({"a": 0.5, "b": 0.5}, group=4)["b"]
    sources["map"] = data.map(lambda sample: sample * 2)
    source = sources[kind]
    for step in (0, 4, 5, 41, 42, 10**6):  # 41 goes over the end of the first epoch
        alone = torch.cat(ranks_of_step(source, step, 1))
        assert torch.equal(alone, source.read(5, step * GLOBAL, GLOBAL))
        for world_size in range(2, 14):
            assert torch.equal(torch.cat(ranks_of_step(source, step, world_size)), alone)


def test_global_order_survives_changes_in_mid_epoch(data: MappedDataset) -> None:
    undisturbed = [data.read(5, step * GLOBAL, GLOBAL) for step in range(60)]
    draw, seen, state = random.Random(1), list[torch.Tensor](), b""
    while len(seen) < 60:  # each time another number of ranks goes on from 40 bytes
        world_size = draw.randint(1, 13)
        loaders = [
            BatchLoader(data, GLOBAL, micro_batch=MICRO, seed=5, rank=r, world_size=world_size)
            for r in range(world_size)
        ]
        for loader in loaders:
            if state:
                loader.load_state(state)
        for _ in range(min(draw.randint(1, 9), 60 - len(seen))):
            step = loaders[0].step
            rows = [batch for each in loaders for batch in take_step(each)]
            assert {each.step for each in loaders} == {step + 1}
            seen.append(torch.cat(rows))
        states = {each.state() for each in loaders}
        assert len(states) == 1
        (state,) = states
        assert len(state) == 40
    assert all(torch.equal(a, b) for a, b in zip(seen, undisturbed, strict=True))


def take_step(loader: BatchLoader) -> list[torch.Tensor]:
    step, loader.step = loader.step, loader.step + 1
    return [loader.micro_batch_of(step, index) for index in range(len(loader.mine))]


def test_loader_and_job_see_the_same_samples(data: MappedDataset, mixture: Mixture) -> None:
    batches = Batches(GLOBAL, MICRO, 5)
    for source in (data, mixture):
        for step in (0, 7, 41):
            for index in range(batches.count):
                samples = batches.samples(source, step, index)
                alone = source.samples_at(5, batches.first(step, index), MICRO)
                assert samples == alone


def test_loader_goes_through_epochs(data: MappedDataset) -> None:
    loader = data.loader(100, seed=1, rank=0, world_size=1)
    assert len(loader) == 10
    first, second = list(loader), list(loader)
    assert sorted(torch.cat(first)[:, 0].tolist()) == sorted(torch.cat(second)[:, 0].tolist())
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert loader.step == 20
    again = data.loader(100, seed=1, rank=0, world_size=1)
    again.step = 13
    assert torch.equal(next(iter(again)), second[3])
    in_order = data.loader(100, shuffle=False, rank=0, world_size=1)
    assert torch.equal(next(iter(in_order)), data.batch(range(100)))


def test_cursor_is_40_bytes_and_refuses_other_data(data: MappedDataset, mixture: Mixture) -> None:
    cursor = Cursor.of(data, seed=2**64 - 1, position=2**63 + 5)
    state = cursor.to_bytes()
    assert len(state) == 40
    assert Cursor.from_bytes(state) == cursor
    cursor.check(data)
    longer = MappedDataset(data.path, 21)
    parts = data.split({"a": 0.5, "b": 0.5})
    for other, why in (
        (mixture, "is of dataset"),
        (longer, "read in another way"),
        (parts["a"], "read in another way"),
    ):
        with pytest.raises(MismatchError, match=why):
            cursor.check(other)
    newer = bytearray(state)
    newer[16] += 1
    with pytest.raises(MismatchError, match="order version 2"):
        Cursor.from_bytes(bytes(newer)).check(data)
    for wrong in (b"", state + b"x"):
        with pytest.raises(CorruptData, match="40 bytes"):
            Cursor.from_bytes(wrong)
    for seed, position in ((-1, 0), (2**64, 0), (0, -1), (0, 2**64)):
        with pytest.raises(InvalidArgument):
            Cursor.of(data, seed, position)


def test_mixture_states_tell_weights_apart(data: MappedDataset, mixture: Mixture) -> None:
    state = mixture.loader(GLOBAL, rank=0, world_size=1).state()
    other = Mixture(mixture.members, [3, 2])
    with pytest.raises(MismatchError, match="weights"):
        other.loader(GLOBAL, rank=0, world_size=1).load_state(state)


def test_loader_refuses_a_state_within_a_step(data: MappedDataset) -> None:
    state = Cursor.of(data, 5, 36).to_bytes()
    with pytest.raises(InvalidArgument, match="within a step of 24"):
        data.loader(24, rank=0, world_size=1).load_state(state)
    loader = data.loader(12, seed=1, rank=0, world_size=1)
    loader.load_state(state)
    assert torch.equal(next(iter(loader)), data.read(5, 36, 12))


def test_loader_refuses_what_cannot_be_dealt(data: MappedDataset) -> None:
    for options, why in (
        ({"batch_size": 25, "rank": 0, "world_size": 2}, "not a multiple of the 2 ranks"),
        ({"batch_size": 24, "rank": 2, "world_size": 2}, "rank 2"),
        ({"batch_size": 24, "rank": 0, "world_size": 1, "micro_batch": 5}, "multiple"),
        ({"batch_size": 1001, "rank": 0, "world_size": 1}, "not one batch"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            data.loader(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_stream_in_a_dataloader_keeps_the_order(data: MappedDataset, workers: int) -> None:
    options: dict[str, Any] = {"micro_batch": 10, "seed": 3, "rank": 1, "world_size": 2}
    expected = list(data.loader(40, **options))
    stream = data.iterable(40, **options)
    got = list(DataLoader(stream, batch_size=None, num_workers=workers))
    assert len(got) == len(expected) == 50
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    stream.set_epoch(7)
    loader = data.loader(40, **options)
    loader.step = 7 * loader.steps
    assert torch.equal(next(iter(stream)), next(iter(loader)))


@pytest.mark.parametrize("workers", [0, 2])
def test_dataset_in_a_plain_dataloader(data: MappedDataset, workers: int) -> None:
    loader = DataLoader(data, batch_size=50, num_workers=workers)
    assert torch.equal(torch.cat(list(loader)), data.batch(range(1000)))


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_in_a_stateful_dataloader(data: MappedDataset, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> Any:
        stream = data.iterable(40, micro_batch=10, seed=3, rank=0, world_size=1)
        return stateful.StatefulDataLoader(stream, batch_size=None, num_workers=workers)

    expected = list(data.loader(40, micro_batch=10, seed=3, rank=0, world_size=1))
    loader = make()
    iterator = iter(loader)
    for batch in expected[:7]:  # in mid-step
        assert torch.equal(next(iterator), batch)
    state = loader.state_dict()
    del iterator
    resumed = make()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == len(expected) - 7
    assert all(torch.equal(a, b) for a, b in zip(rest, expected[7:], strict=True))
