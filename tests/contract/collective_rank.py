"""A rank of the tests of the `collective` transport: sources and receivers over Gloo.

Run as ``python collective_rank.py WORLD FILE PLAN``; PLAN is JSON. Rank 0 forks the others, which
are sources, each in a group of two with it; it receives, prints one JSON line and ends them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpcore.collective_receiver import CollectiveReceiver
from hpcore.collective_source import CollectiveSource
from hpcore.errors import HpcoreError

CHUNK = 1 << 16


class FlippingSource(CollectiveSource):
    """A test double: damages chunks on the way, so many times."""

    flips = 0

    def _outgoing(self, chunk: int, buffers: list[Any]) -> list[Any]:
        if chunk == 1 and self.flips > 0:
            self.flips -= 1
            buffers = [buffer.clone() for buffer in buffers]
            buffers[0][0] ^= 1
        return buffers


def tensors(seed: int | None) -> list[torch.Tensor]:
    """Big, odd, empty and many tiny ones; seed None: zeros."""
    generator = torch.Generator().manual_seed(seed or 0)
    shapes = [(300_001,), (0,), (7, 11), *[(4,)] * 3000, (200_000,)]
    made = [torch.rand(shape, generator=generator) for shape in shapes]
    return made if seed is not None else [torch.zeros_like(tensor) for tensor in made]


def receive(plan: dict[str, Any], store: Any, groups: dict[int, Any]) -> dict[str, Any]:
    mine = tensors(None)
    if plan.get("layout"):
        mine[2] = torch.zeros(5, 5)
    receiver = CollectiveReceiver(
        mine,
        store=store,
        generation=plan.get("generation", 3),
        rank=0,
        groups=groups,
        chunk_bytes=CHUNK,
        answer_limit_s=plan.get("answer_limit_s", 2.0),
    )
    try:
        stats = receiver.pull(plan.get("timeout_s", 30.0))
    except HpcoreError as error:
        return {"error": type(error).__name__, "message": str(error)}
    right = all(torch.equal(a, b) for a, b in zip(mine, tensors(11), strict=True))
    return {**vars(stats), "right": right}


def serve(plan: dict[str, Any], rank: int, store: Any, group: Any) -> dict[str, Any]:
    FlippingSource.flips = plan.get("flips", 0) if rank == 1 else 0
    held = tensors(11)
    if plan.get("drifted") == rank:
        held[0][5] += 1
    source = FlippingSource(
        held,
        store=store,
        generation=3,
        rank=rank,
        groups={0: group},
        chunk_bytes=CHUNK,
        answer_limit_s=2.0,
    )
    if plan.get("dies") == rank:  # as soon as something was asked of it
        while source._links[0].asked == 0:
            time.sleep(0.001)
        os.kill(os.getpid(), plan["signal"])
    source.wait(20)
    source.close()
    return {"troubles": list(source.troubles.values())}


def meet(rank: int, path: Path) -> Any:
    """Rank 0's TCPStore: no file lock that a stopped rank could hold. A file tells its port."""
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        path.with_suffix(".new").write_text(str(store.port))
        path.with_suffix(".new").rename(path)
        return store
    while not path.exists():
        time.sleep(0.01)
    return dist.TCPStore("127.0.0.1", int(path.read_text()), is_master=False)


def run(rank: int, world: int, path: Path, plan: dict[str, Any]) -> dict[str, Any]:
    store = meet(rank, path)
    limit = timedelta(seconds=30)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)
    groups = {peer: dist.new_group([0, peer], timeout=limit) for peer in range(1, world)}
    return receive(plan, store, groups) if rank == 0 else serve(plan, rank, store, groups[rank])


def main() -> None:
    world, path = int(sys.argv[1]), Path(sys.argv[2])
    plan = json.loads(sys.argv[3])
    sources = []
    for rank in range(1, world):
        if (pid := os.fork()) == 0:
            try:
                run(rank, world, path, plan)
            finally:
                os._exit(0)
        sources.append(pid)
    try:
        print(json.dumps(run(0, world, path, plan)), flush=True)
    finally:
        for pid in sources:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    os._exit(0)  # groups whose peers were killed cannot be ended in an orderly way


if __name__ == "__main__":
    main()
