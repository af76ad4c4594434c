"""Memory of batches is used again, but never while anybody has any of it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from dataset_files import token_file

from hpcore.dataset import MappedDataset
from hpcore.dataset.output_ring import FREE_BUFFERS, FREE_BYTES, OutputRing

SHAPE = (8, 21)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MappedDataset:
    return MappedDataset(token_file(tmp_path_factory.mktemp("ring"), 20_001)[0], 20)


def test_dropped_batch_is_used_again(data: MappedDataset) -> None:
    places = set()
    for step in range(20):
        places.add(data.read(1, step * 8, 8).data_ptr())
    assert len(places) <= 2  # the next is filled before the last is dropped


@pytest.mark.parametrize(
    "keep",
    [
        lambda batch: batch,
        lambda batch: batch[3],
        lambda batch: batch.numpy(),
        lambda batch: batch.view(-1)[5:].detach(),
        lambda batch: memoryview(batch.numpy()),
        lambda batch: batch.untyped_storage(),
        lambda batch: torch.from_dlpack(batch),
        lambda batch: (batch.double().requires_grad_() * batch).sum(),  # saved for backward
    ],
)
def test_memory_that_anybody_has_is_left_alone(keep: Any) -> None:
    ring = OutputRing()
    batch = ring.take(SHAPE, torch.int64)
    place = batch.data_ptr()
    kept = keep(batch)
    del batch
    others = [ring.take(SHAPE, torch.int64) for _ in range(2 * FREE_BUFFERS)]
    assert place not in {other.data_ptr() for other in others}
    del kept
    assert ring.take(SHAPE, torch.int64).data_ptr() == place


def test_what_is_kept_is_bounded(data: MappedDataset) -> None:
    ring = OutputRing()
    many = [ring.take(SHAPE, torch.int64) for _ in range(20)]
    many.clear()
    assert len(ring._now[1]) == FREE_BUFFERS and not ring._lent
    late = ring.take(SHAPE, torch.int64)
    assert ring.take((4, 21), torch.int32).dtype == torch.int32  # the old shape is given up
    del late
    assert all(buffer.shape == (4, 21) for buffer in ring._now[1])
    large = ring.take((FREE_BYTES // FREE_BUFFERS + 1,), torch.uint8)
    assert len(large) and not ring._lent and not ring._now[1]
    assert ring.take((0, 21), torch.int64).shape == (0, 21)


def test_threads_never_share_memory(data: MappedDataset) -> None:
    wrong: list[int] = []

    def read(thread: int) -> None:
        before = None
        for step in range(thread, 400, 4):
            batch = data.read(1, step * 8, 8)
            if before is not None and not torch.equal(*before):
                wrong.append(step)
            before = (batch, data.batch(data.samples_at(1, step * 8, 8)).clone())

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_batch_outlives_its_dataset(tmp_path: Path) -> None:
    path, tokens = token_file(tmp_path, 1000)
    data = MappedDataset(path, 20)
    batch = data.batch([0, 1])
    data.close()
    del data
    assert batch[0].tolist() == [int(token) for token in tokens[:21]]
