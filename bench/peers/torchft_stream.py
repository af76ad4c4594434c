"""torchft 0.2's checkpoint transports: state from one process into another on the same node.

* `torchft/http`: HTTPTransport as the manager makes it, and in eight chunks.
* `torchft/pg`: PGTransport over Gloo, into new tensors and in place.

One JSON line each: {"name", "bytes_per_s": [...], "note"}. What arrived is compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torchft.checkpointing.http_transport import HTTPTransport
from torchft.checkpointing.pg_transport import PGTransport
from torchft.process_group import ProcessGroupGloo

PATIENCE = timedelta(seconds=60)


def state(mib: int, tensors: int, value: float) -> dict[str, Any]:
    each = (mib << 20) // tensors // 4
    return {f"t{i}": torch.full((each,), value + i) for i in range(tensors)}


def transport(rank: int, kind: str, port: int, own: dict[str, Any]) -> Any:
    if kind.startswith("http"):
        return HTTPTransport(PATIENCE, num_chunks=8 if kind == "http-8" else 0)
    group = ProcessGroupGloo(timeout=PATIENCE)
    group.configure(f"127.0.0.1:{port}/{kind}", "replica", rank, 2)
    in_place = (lambda: own) if kind == "pg-in-place" else None
    return PGTransport(group, PATIENCE, torch.device("cpu"), state_dict=in_place)


def run(rank: int, options: Any, kind: str, port: int, pipe: Any) -> None:
    torch.set_num_threads(1)
    own = state(options.mib, options.tensors, 3.0 if rank == 0 else 0.0)
    moved = transport(rank, kind, port, own)
    pipe.send(moved.metadata())
    metadata = pipe.recv()  # the sender's
    for step in range(options.rounds + 1):
        pipe.recv()
        begin = time.perf_counter()
        if rank == 0:
            moved.send_checkpoint([1], step, own, PATIENCE)
            pipe.send(None)
        else:
            got = moved.recv_checkpoint(0, metadata, step, PATIENCE)
            taken = time.perf_counter() - begin
            right = all(bool((got[f"t{i}"] == 3.0 + i).all()) for i in range(options.tensors))
            pipe.send(taken if right else None)
            del got
        pipe.recv()
        if rank == 0:
            moved.disallow_checkpoint()
    moved.shutdown(wait=False)


def measure(options: Any, kind: str, port: int) -> list[float]:
    spawn = multiprocessing.get_context("fork")
    pipes, processes = [], []
    try:
        for rank in range(2):
            mine, theirs = spawn.Pipe()
            process = spawn.Process(target=run, args=(rank, options, kind, port, theirs))
            process.daemon = True
            process.start()
            pipes.append(mine)
            processes.append(process)
        metadata = pipes[0].recv()
        pipes[1].recv()
        for pipe in pipes:
            pipe.send(metadata)
        taken = []
        for step in range(options.rounds + 1):
            pipes[0].send("send")
            if kind.startswith("http"):
                pipes[0].recv()  # it is served from now on
            pipes[1].send("receive")
            seconds = pipes[1].recv()
            if not kind.startswith("http"):
                pipes[0].recv()
            if seconds is None:
                raise RuntimeError(f"{kind}: what arrived is not what was sent")
            if step > 0:
                taken.append(seconds)
            for pipe in pipes:
                pipe.send("done")
        return taken
    finally:
        for process in processes:
            process.kill()
            process.join()


NOTES = {
    "http": "HTTPTransport",
    "http-8": "HTTPTransport in eight chunks",
    "pg": "PGTransport over Gloo into new tensors",
    "pg-in-place": "PGTransport over Gloo in place",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--tensors", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for kind, note in NOTES.items():
        taken = measure(options, kind, store.port)
        rates = [(options.mib << 20) / seconds for seconds in taken]
        line = {"name": f"torchft/{kind}", "bytes_per_s": rates, "note": note}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
