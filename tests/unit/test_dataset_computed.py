"""`dataset.map`: computed once, shared by processes, and an error is an error."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_files import token_file
from torch.utils.data import DataLoader

from hpcore.dataset import MappedDataset
from hpcore.dataset.computed import decode, encode
from hpcore.errors import InvalidArgument


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MappedDataset:
    return MappedDataset(token_file(tmp_path_factory.mktemp("computed"), 2001)[0], 20)


def double(sample: torch.Tensor) -> torch.Tensor:
    return sample * 2


class Counted:
    """Counts its calls; module-level, so that it can be pickled."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, sample: torch.Tensor, position: int = 0) -> dict[str, Any]:
        self.calls += 1
        return {"input_ids": sample[:-1], "sum": int(sample.sum()), "position": position}


@pytest.mark.parametrize("cache", ["", "node"])
def test_map_gives_the_functions_results(data: MappedDataset, cache: str) -> None:
    mapped = data.map(double, cache=cache, cache_bytes=1 << 20)
    for _ in range(2):
        assert torch.equal(mapped.batch([5, 1]), data.batch([5, 1]) * 2)
        assert torch.equal(mapped[7], data[7] * 2)
        assert torch.equal(mapped.read(1, 90, 20), data.read(1, 90, 20) * 2)
    assert len(mapped) == len(data)
    assert bool(mapped.counters) == bool(cache)
    with pytest.raises(IndexError):
        mapped[100]


def test_map_computes_once(data: MappedDataset) -> None:
    counted = Counted()
    mapped = data.map(counted, cache="node", cache_bytes=1 << 20)
    first = mapped.batch([3, 4, 5])
    assert counted.calls == 3
    again = mapped.batch([5, 4, 6])
    assert counted.calls == 4
    assert torch.equal(first["input_ids"][1:].flip(0), again["input_ids"][:2])
    assert mapped.counters["hits"] == 2


def test_map_keyed_by_position_differs_by_epoch(data: MappedDataset) -> None:
    counted = Counted()
    mapped = data.map(counted, cache="node", key="position", cache_bytes=1 << 20)
    one = mapped.read(1, 0, 4)
    two = mapped.read(1, 100, 4)  # the next epoch
    assert one["position"].tolist() == [0, 1, 2, 3]
    assert two["position"].tolist() == [100, 101, 102, 103]
    assert counted.calls == 8
    mapped.read(1, 2, 4)
    assert counted.calls == 10
    with pytest.raises(InvalidArgument, match="keyed by position"):
        mapped.batch([1])


def test_map_recomputes_what_the_ring_forgot(data: MappedDataset) -> None:
    mapped = data.map(lambda s: torch.full((20_000,), int(s[0])), cache="node", cache_bytes=1 << 20)
    for _ in range(2):
        for index in range(40):
            assert int(mapped[index][0]) == int(data[index][0])
    huge = data.map(lambda s: torch.zeros(1 << 18), cache="node", cache_bytes=1 << 20)
    assert huge[0].shape == huge[0].shape == (1 << 18,)
    assert huge.counters["refused"] == 2


@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, KeyError, GeneratorExit], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("workers", [0, 1])
def test_map_that_raises_never_ends_an_epoch_silently(
    data: MappedDataset, kind: type[BaseException], workers: int
) -> None:
    if workers and not issubclass(kind, Exception):
        pytest.skip("a GeneratorExit kills a worker; DataLoader says that it is gone")

    def fail_at_30(sample: torch.Tensor) -> torch.Tensor:
        if torch.equal(sample, data[30]):
            raise kind("a bad sample")
        return sample

    mapped = data.map(fail_at_30, cache="node", cache_bytes=1 << 20)
    expected = RuntimeError if kind is StopIteration else kind
    for make in (
        lambda: DataLoader(mapped, batch_size=10, num_workers=workers),
        lambda: DataLoader(
            mapped.iterable(10, shuffle=False, rank=0, world_size=1),
            batch_size=None,
            num_workers=workers,
        ),
    ):
        seen, iterator = 0, iter(make())
        try:
            with pytest.raises(expected):
                for _ in iterator:
                    seen += 1
        finally:
            getattr(iterator, "_shutdown_workers", lambda: None)()
        assert seen == 3


def test_map_says_which_sample_failed(data: MappedDataset) -> None:
    def fail(sample: torch.Tensor) -> torch.Tensor:
        raise StopIteration

    with pytest.raises(RuntimeError, match=r"fail failed for sample 30 .*StopIteration"):
        data.map(fail).batch([30])


def in_child(work: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_map_is_shared_by_forked_processes(data: MappedDataset) -> None:
    counted = Counted()
    mapped = data.map(counted, cache="node", cache_bytes=1 << 20)
    assert in_child(lambda: mapped.batch([1, 2, 3])["sum"].shape == (3,)) == 0
    assert mapped.batch([1, 2, 3])["sum"].shape == (3,)
    assert counted.calls == 0  # all from the child, which is dead


def test_map_pickled_finds_the_same_memory(data: MappedDataset) -> None:
    mapped = data.map(Counted(), cache="node", cache_bytes=1 << 20)
    mapped.batch([1])
    copy = pickle.loads(pickle.dumps(mapped))
    copy.batch([1])
    assert copy.fn.calls == 1  # as pickled: not called again
    copy._place = "/proc/self/fd/none"
    orphan = pickle.loads(pickle.dumps(copy))  # its maker is gone: computed
    assert int(orphan.batch([1])["sum"]) == int(mapped.batch([1])["sum"])
    assert orphan.fn.calls == 2


def test_map_refuses_other_options(data: MappedDataset) -> None:
    for options in ({"cache": "disk"}, {"key": "index"}):
        with pytest.raises(InvalidArgument, match="must be one of"):
            data.map(double, **options)


def test_results_come_back_as_they_were() -> None:
    value = {
        "tensors": [torch.arange(6).reshape(2, 3).t(), torch.ones(2, dtype=torch.bfloat16)],
        "empty": torch.zeros((0, 3)),
        "array": np.arange(4, dtype=np.float16),
        "plain": (1, "text", None, b"\0\1", 2.5),
    }
    back = decode(encode(value))
    assert torch.equal(back["tensors"][0], value["tensors"][0])  # type: ignore[index]
    assert back["tensors"][1].dtype == torch.bfloat16
    assert back["empty"].shape == (0, 3)
    assert back["array"].dtype == np.float16
    assert back["plain"] == value["plain"]


def test_map_of_lists_collates_as_torch_does(data: MappedDataset, tmp_path: Path) -> None:
    mapped = data.map(lambda sample: (sample[:-1], sample[1:]))
    inputs, targets = mapped.batch([0, 1])
    assert inputs.shape == targets.shape == (2, 20)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
