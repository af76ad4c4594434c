"""Gathering: each way to read gives the same, into whatever memory, and refuses what is unsafe."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_files import token_file

from hpcore import _core
from hpcore.dataset import MappedDataset
from hpcore.errors import CorruptData, InvalidArgument

MODES = ("map", "read")
BLOCK = 256 << 10
DATA = 2 << 20


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["int64", "int32", "stored"])
@pytest.mark.parametrize("verify", [True, False])
def test_reader_gives_the_tokens(tmp_path: Path, mode: str, dtype: str, verify: bool) -> None:
    path, tokens = token_file(tmp_path, 300_000)
    data = MappedDataset(path, 100, verify, mode=mode, dtype=dtype)
    wanted = {"int64": torch.int64, "int32": torch.int32, "stored": torch.uint16}[dtype]
    indices = [0, 5, len(data) - 1, 5, 1310, 1311, 77]
    batch = data.batch(indices)
    assert (data.mode, batch.dtype, data.dtype) == (mode, wanted, wanted)
    for row, index in zip(batch, indices, strict=True):
        assert torch.equal(row.to(torch.int64), tokens[index * 100 : index * 100 + 101])


@pytest.mark.parametrize("mode", MODES)
def test_reader_follows_the_order_over_epochs(tmp_path: Path, mode: str) -> None:
    path, _ = token_file(tmp_path)
    data = MappedDataset(path, 1000, mode=mode)
    size = len(data)
    positions = data.samples_at(9, size - 3, 10)
    assert positions == [data.order(9, 0)(size - 3 + i) for i in range(3)] + [
        data.order(9, 1)(i) for i in range(7)
    ]
    assert torch.equal(data.read(9, size - 3, 10), data.batch(positions))
    assert data.samples_at(9, size - 1, 3, shuffle=False) == [size - 1, 0, 1]
    assert torch.equal(data.read(0, size - 1, 2, False), data.batch([size - 1, 0]))


@pytest.mark.parametrize("mode", MODES)
def test_reader_shares_a_large_batch_among_threads(tmp_path: Path, mode: str) -> None:
    path, tokens = token_file(tmp_path, 600_000)
    data = MappedDataset(path, 1000, mode=mode, threads=3)
    indices = [(i * 7) % len(data) for i in range(700)]  # 5.6 MB of int64
    batch = data.batch(indices)
    for i in (0, 233, 234, 350, 466, 467, 699):
        first = indices[i] * 1000
        assert torch.equal(batch[i], tokens[first : first + 1001])
    assert torch.equal(batch, MappedDataset(path, 1000, threads=1).batch(indices))


def test_reader_fills_the_tensor_it_is_given(tmp_path: Path) -> None:
    path, tokens = token_file(tmp_path)
    data = MappedDataset(path, 10)
    out = torch.zeros((3, 11), dtype=torch.int64)
    assert data.batch([3, 1, 2], out) is out
    assert torch.equal(out[1], tokens[10:21])
    assert data.read(1, 0, 3, out=out) is out
    wrong: list[Any] = [
        torch.zeros((2, 11), dtype=torch.int64),
        torch.zeros((3, 11), dtype=torch.int32),
        torch.zeros((11, 3), dtype=torch.int64).t(),
        torch.zeros((3, 11), dtype=torch.int64, device="meta"),
    ]
    for tensor in wrong:
        with pytest.raises(InvalidArgument, match="contiguous"):
            data.batch([3, 1, 2], tensor)


def test_reader_view_is_safe_to_write(tmp_path: Path) -> None:
    path, tokens = token_file(tmp_path)
    data = MappedDataset(path, 1000)
    before = path.read_bytes()
    view = data.view(7)
    assert view.dtype == np.uint16
    assert view.tolist() == tokens[7000:8001].tolist()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.warns(UserWarning, match="not writable"):
        tensor = torch.from_numpy(view)
    tensor[:] = 3  # a segmentation fault, if the mapping were the shared one
    assert path.read_bytes() == before
    assert torch.equal(data.batch([7])[0], tokens[7000:8001])
    data.close()
    assert int(tensor.sum()) == 3 * 1001  # outlives the dataset
    with pytest.raises(InvalidArgument, match="closed"):
        data.view(7)


@pytest.mark.parametrize("mode", MODES)
def test_reader_finds_a_file_cut_short(tmp_path: Path, mode: str) -> None:
    path, _ = token_file(tmp_path, 800_000)
    data = MappedDataset(path, 100, mode=mode)
    data.batch([0])
    os.truncate(path, DATA + BLOCK)
    for _ in range(2):
        with pytest.raises(CorruptData, match=path.name):
            data.batch([len(data) - 1])


@pytest.mark.parametrize("mode", MODES)
def test_reader_names_a_flipped_block_once_read_ahead_or_not(tmp_path: Path, mode: str) -> None:
    path, _ = token_file(tmp_path, 800_000)
    with path.open("r+b") as stream:
        stream.seek(DATA + 2 * BLOCK + 9)
        stream.write(b"\xfe\xfe")
    data = MappedDataset(path, 100, mode=mode)
    bad = (2 * BLOCK + 9) // 200
    assert data.will_need([0, bad]) == 3  # the row lies across two blocks
    data.batch([0])
    with pytest.raises(CorruptData, match=r"block 2 of .*does not match"):
        data.batch([0, bad])
    MappedDataset(path, 100, False, mode=mode).batch([bad])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verify", [True, False])
def test_reader_asks_for_a_block_once(tmp_path: Path, mode: str, verify: bool) -> None:
    path, tokens = token_file(tmp_path, 800_000)
    data = MappedDataset(path, 100, verify, mode=mode)
    blocks = -(-800_000 * 2 // BLOCK)
    everything = range(len(data))
    assert data.will_need(everything) == blocks
    assert data.will_need(everything) == 0
    assert data.announce(1, 0, len(data)) == 0
    assert torch.equal(data.batch([17])[0], tokens[1700:1801])


def test_reader_chooses_its_mode_by_size() -> None:
    gib = 1 << 30
    assert _core.maps_file(11 * gib, 24 * gib)
    assert not _core.maps_file(13 * gib, 24 * gib)
    assert _core.maps_file(64 * gib, 1024 * gib)
    assert not _core.maps_file(65 * gib, 1024 * gib)


def test_reader_refuses_what_it_cannot_give(tmp_path: Path) -> None:
    path, _ = token_file(tmp_path)
    for options, why in (
        ({"mode": "fast"}, "mode 'fast'"),
        ({"dtype": "int16"}, "dtype 'int16'"),
        ({"threads": 0}, "threads"),
        ({"field": "images"}, "no stream 'images'"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            MappedDataset(path, 10, **options)  # type: ignore[arg-type]


def test_reader_survives_a_fork_and_a_pickle(tmp_path: Path) -> None:
    path, tokens = token_file(tmp_path, 800_000)
    data = MappedDataset(path, 1000, threads=2)
    data.will_need(range(len(data)))  # its threads run now
    pid = os.fork()
    if pid == 0:
        try:
            same = torch.equal(data.batch(range(400))[399], tokens[399_000:400_001])
            data.close()
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    copy = pickle.loads(pickle.dumps(MappedDataset(path, 50, mode="read", dtype="int32")))
    assert (copy.mode, copy.dtype, len(copy)) == ("read", torch.int32, 15_999)


def test_reader_serves_threads_at_once(tmp_path: Path) -> None:
    path, tokens = token_file(tmp_path, 800_000)
    data = MappedDataset(path, 1000, threads=2)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(20):
            batch = data.read(seed, step * 16, 16)
            for row, sample in zip(batch, data.samples_at(seed, step * 16, 16), strict=True):
                if not torch.equal(row, tokens[sample * 1000 : sample * 1000 + 1001]):
                    wrong.append(sample)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
