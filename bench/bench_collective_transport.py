"""The `collective` transport beside bare send and receive of the same tensors over one backend.

Run as ``python bench/bench_collective_transport.py [MIB] [ROUNDS]``: one source, one receiver, Gloo
on this host, turn by turn in one run; the content is checked.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from hpcore.collective_receiver import CollectiveReceiver
from hpcore.collective_source import CollectiveSource

TENSORS = 16


def bare(rank: int, tensors: list[torch.Tensor]) -> None:
    move = dist.isend if rank else dist.irecv
    works = [move(tensor, 1 - rank, tag=1 << 25 | i) for i, tensor in enumerate(tensors)]
    for work in works:
        assert work is not None
        work.wait()


def one_round(rank: int, store: Any, number: int, tensors: list[torch.Tensor]) -> list[float]:
    dist.barrier()
    begin = time.perf_counter()
    bare(rank, tensors)
    middle = time.perf_counter()
    dist.barrier()
    group = {1 - rank: dist.group.WORLD}
    facts: dict[str, Any] = {"store": store, "generation": number, "rank": rank, "groups": group}
    if rank:
        with CollectiveSource(tensors, **facts) as source:
            source.wait(60)
        return []
    begin_pull = time.perf_counter()
    CollectiveReceiver(tensors, **facts).pull(60)
    return [middle - begin, time.perf_counter() - begin_pull]


def main() -> None:
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    read, write = os.pipe()
    rank = 1 if os.fork() == 0 else 0
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(write, str(store.port).encode())
    else:
        store = dist.TCPStore("127.0.0.1", int(os.read(read, 16)), is_master=False)
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
    size = mib * (1 << 20) // TENSORS
    tensors = [torch.full((size,), i if rank else 0, dtype=torch.uint8) for i in range(TENSORS)]
    times = []
    for number in range(rounds + 1):
        if rank == 0:
            for tensor in tensors:
                tensor.zero_()
        times.append(one_round(rank, store, number, tensors))
        if rank == 0:
            assert all(bool((tensor == i).all()) for i, tensor in enumerate(tensors))
    dist.barrier()
    dist.destroy_process_group()
    if rank == 1:
        os._exit(0)
    os.wait()
    gigabytes = mib * (1 << 20) / 1e9
    raw, pulled = (statistics.median(column) for column in zip(*times[1:], strict=True))
    print(
        f"bare Gloo send/recv {gigabytes / raw:.2f} GB/s, collective {gigabytes / pulled:.2f} GB/s"
    )
    print(f"collective, digests and requests included: {raw / pulled:.2f} x bare")


if __name__ == "__main__":
    main()
