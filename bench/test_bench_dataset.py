"""Shuffled batches of a dataset, beside numpy.memmap. Run: pytest bench --benchmark-only."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcore import _core, dataset

SEQUENCE, BATCH, BATCHES = 512, 64, 100


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "text").write_bytes(random.Random(1).randbytes(64 << 20))
    dataset.build_text([folder / "text"], folder / "tokens.hpd")
    return folder


@pytest.mark.parametrize("reader", ["hpcore", "memmap"])
def test_batch_speed(benchmark: Any, source: Path, reader: str) -> None:
    mapped = dataset.MappedDataset(source / "tokens.hpd", sequence=SEQUENCE)
    plain = np.memmap(source / "text", dtype=np.uint8, mode="r")
    order = mapped.order(7, 0)

    def ours() -> None:
        for number in range(BATCHES):
            mapped.batch(order.many(number * BATCH, BATCH))

    def memmap() -> None:
        for number in range(BATCHES):
            rows = [
                torch.from_numpy(plain[i * SEQUENCE : i * SEQUENCE + SEQUENCE + 1].astype(np.int64))
                for i in order.many(number * BATCH, BATCH)
            ]
            torch.stack(rows)

    benchmark.pedantic(ours if reader == "hpcore" else memmap, rounds=5, warmup_rounds=1)
    tokens = BATCHES * BATCH * SEQUENCE
    benchmark.extra_info["tokens_per_s"] = tokens / benchmark.stats.stats.median


def test_permutation_speed(benchmark: Any) -> None:
    order = _core.Permutation(10**9 + 7, 1, 0)
    benchmark(order.many, 12345, 10000)
