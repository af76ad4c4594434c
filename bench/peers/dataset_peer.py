"""Shuffled int64 batches of 32 x 1,024 uint16 tokens by other loaders: one line of JSON.

usage: dataset_peer.py PEER FOLDER TOKENS.bin ROUNDS. Each peer as its documentation has it, over
the same tokens: an epoch's throughput (at most 1,000 batches), and the time from a fresh loader,
the data being open, to its first batch after batch 1,500 (for those that keep a state, from it).
As driven here litdata and streaming then give another batch than their first pass had there: their
first-batch times are of what they do, not of an exact resume. StatefulDataLoader gives the same.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

SEQUENCE, BATCH, AT, LIMIT = 1024, 32, 1500, 1000
Start = Callable[[int], Iterator[Any]]


class Rows(Dataset[torch.Tensor]):
    """numpy.memmap rows, as nanoGPT reads them."""

    def __init__(self, path: str) -> None:
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r")

    def __len__(self) -> int:
        return len(self.tokens) // SEQUENCE

    def __getitem__(self, index: int) -> torch.Tensor:
        row = self.tokens[index * SEQUENCE : (index + 1) * SEQUENCE]
        return torch.from_numpy(row.astype(np.int64))


def order(size: int) -> list[int]:
    return torch.randperm(size, generator=torch.Generator().manual_seed(7)).tolist()


def memmap(path: str, folder: Path, workers: int = 0) -> Start:
    rows = Rows(path)

    def start(at: int) -> Iterator[Any]:
        rest = Subset(rows, order(len(rows))[at * BATCH :])
        return iter(DataLoader(rest, BATCH, num_workers=workers))

    return start


def stateful(path: str, folder: Path) -> Start:
    from torchdata.stateful_dataloader import StatefulDataLoader

    rows = Rows(path)

    def make() -> Any:
        generator = torch.Generator().manual_seed(7)
        return StatefulDataLoader(rows, BATCH, shuffle=True, generator=generator)

    loader = make()
    iterator = iter(loader)
    for _ in range(AT):
        next(iterator)
    state = loader.state_dict()

    def start(at: int) -> Iterator[Any]:
        again = make()
        if at:
            again.load_state_dict(state)
        return iter(again)

    return start


def megatron(path: str, folder: Path) -> Start:
    """GPTDataset's way: shuffle and sample indices in arrays, a row a sample."""
    rows = Rows(path)
    folder.mkdir(exist_ok=True)
    shuffled = np.arange(len(rows), dtype=np.uint32)
    np.random.RandomState(7).shuffle(shuffled)
    np.save(folder / "shuffle.npy", shuffled)

    class Indexed(Dataset[dict[str, torch.Tensor]]):
        def __init__(self) -> None:
            self.index = np.load(folder / "shuffle.npy", mmap_mode="r")

        def __len__(self) -> int:
            return len(self.index)

        def __getitem__(self, at: int) -> dict[str, torch.Tensor]:
            tokens = rows[int(self.index[at])]
            mask = torch.ones(SEQUENCE, dtype=torch.float)
            return {"tokens": tokens, "loss_mask": mask, "position_ids": torch.arange(SEQUENCE)}

    def start(at: int) -> Iterator[Any]:
        data = Indexed()
        batches = (list(range(i * BATCH, (i + 1) * BATCH)) for i in range(at, len(data) // BATCH))
        return (b["tokens"] for b in DataLoader(data, batch_sampler=list(batches)))

    return start


def grain(path: str, folder: Path) -> Start:
    import grain.python as pygrain

    class Source:
        def __init__(self) -> None:
            self.tokens = np.memmap(path, dtype=np.uint16, mode="r")

        def __len__(self) -> int:
            return len(self.tokens) // SEQUENCE

        def __getitem__(self, index: int) -> Any:
            return self.tokens[index * SEQUENCE : (index + 1) * SEQUENCE].astype(np.int64)

    data = pygrain.MapDataset.source(Source()).shuffle(seed=7).batch(BATCH)

    def start(at: int) -> Iterator[Any]:
        return (torch.from_numpy(data[i]) for i in range(at, len(data)))

    return start


def hf_datasets(path: str, folder: Path) -> Start:
    import datasets

    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    count = len(tokens) // SEQUENCE
    table = tokens[: count * SEQUENCE].reshape(count, SEQUENCE)
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("uint16"), SEQUENCE)})
    made = datasets.Dataset.from_generator(
        lambda: ({"tokens": row} for row in table), features=features, cache_dir=str(folder)
    )

    def start(at: int) -> Iterator[Any]:
        rows = made.with_format("numpy").shuffle(seed=7)
        return (
            torch.from_numpy(np.asarray(rows[i * BATCH : (i + 1) * BATCH]["tokens"], np.int64))
            for i in range(at, count // BATCH)
        )

    return start


def litdata(path: str, folder: Path) -> Start:
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
    from litdata.streaming.writer import BinaryWriter

    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    folder.mkdir(exist_ok=True)
    writer = BinaryWriter(str(folder), chunk_bytes="64MB", item_loader=TokensLoader())
    for i in range(0, len(tokens), 1 << 20):
        writer.add_item(i >> 20, torch.from_numpy(tokens[i : i + (1 << 20)].astype(np.int32)))
    writer.done()
    writer.merge()

    def start(at: int) -> Iterator[Any]:
        loader = TokensLoader(block_size=SEQUENCE)
        data = StreamingDataset(str(folder), item_loader=loader, shuffle=True, seed=7)
        batches = StreamingDataLoader(data, batch_size=BATCH)
        if at:
            state = {"num_samples_yielded": at * BATCH, "num_workers": 0, "batch_size": BATCH}
            data.load_state_dict(data.state_dict(**state))
        return (batch.to(torch.int64) for batch in batches)

    return start


def without_torchvision() -> None:
    """streaming imports torchvision for image sets that are not read here."""
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.datasets", "torchvision.transforms.functional"):
            sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None))
        sys.modules["torchvision.datasets"].VisionDataset = type("VisionDataset", (), {})


def streaming(path: str, folder: Path) -> Start:
    without_torchvision()
    from streaming import MDSWriter, StreamingDataset

    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    with MDSWriter(out=str(folder), columns={"tokens": f"ndarray:uint16:{SEQUENCE}"}) as writer:
        for i in range(len(tokens) // SEQUENCE):
            writer.write({"tokens": np.array(tokens[i * SEQUENCE : (i + 1) * SEQUENCE])})
    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH, shuffle_seed=7)

    def start(at: int) -> Iterator[Any]:
        if at:
            data.load_state_dict(data.state_dict(at * BATCH, False))

        def rows(items: list[Any]) -> torch.Tensor:
            return torch.from_numpy(np.stack([x["tokens"] for x in items]).astype(np.int64))

        return iter(DataLoader(data, BATCH, collate_fn=rows))

    return start


PEERS: dict[str, Callable[[str, Path], Start]] = {
    "memmap": memmap,
    "memmap/workers=2": lambda path, folder: memmap(path, folder, 2),
    "stateful": stateful,
    "megatron": megatron,
    "grain": grain,
    "datasets": hf_datasets,
    "litdata": litdata,
    "streaming": streaming,
}


def main() -> None:
    name, folder, path, rounds = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    start = PEERS[name](path, folder)
    speeds, firsts = [], []
    for _ in range(rounds):
        iterator, count, begin = start(0), 0, time.perf_counter()
        for batch in iterator:
            assert batch.dtype == torch.int64 and batch.shape == (BATCH, SEQUENCE)
            count += 1
            if count == LIMIT:
                break
        speeds.append(count * BATCH * SEQUENCE / (time.perf_counter() - begin))
        del iterator
    for _ in range(rounds * 3):
        begin = time.perf_counter()
        iterator = start(AT)
        next(iterator)
        firsts.append(time.perf_counter() - begin)
        del iterator
    print(json.dumps({"tokens_per_s": speeds, "first_batch": firsts}), flush=True)


if __name__ == "__main__":
    main()
