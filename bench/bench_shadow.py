"""What shadow copies cost: steps of an FSDP2 training with and without them, in turns.

Run: PYTHONPATH=python python bench/bench_shadow.py [--mib 256] [--steps 12] [--ranks 2]
[--turns 2] [--json FILE]. `--mib` is the state of one rank (parameters and AdamW's). Told are the
time of a step, how long the training thread waited for a copy (its start, and its end before the
next step is agreed), and the rate of one memcpy of as much. `--neighbour`: the ranks are on two
nodes (the tests' double of them), each keeps the other's records, over the fabric of HPCORE_FABRIC.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WIDTH = 1024


def train(mib: int, steps: int, every: int) -> None:
    """The worker's side."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.fsdp import fully_shard

    import hpcore

    if os.environ.get("BENCH_NEIGHBOUR"):
        import hpcore.tiers

        hpcore.tiers.STORE_KEY = f"shadow-node{int(os.environ['HPCORE_SLOT']) % 2}"
    torch.set_num_threads(1)
    dist.init_process_group("hpcore")
    ranks = dist.get_world_size()
    layers = max(1, mib * ranks * (1 << 20) // (3 * 4 * WIDTH * WIDTH))
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    for layer in model:
        fully_shard(layer)
    job = hpcore.Job(global_batch=256 * ranks, micro_batch=256, ledger=True, shadow_every=every)
    job.shard(fully_shard(model))
    optimizer = torch.optim.AdamW(model.parameters())
    job.track(model=model, optimizer=optimizer)
    for step in job.steps(total=steps):
        with step:
            for batch in step.micro_batches():
                data = torch.randn(len(batch.samples), WIDTH)
                (model(data).square().mean() * batch.weight).backward()
            step.commit(optimizer)


def run(mib: int, steps: int, ranks: int, every: int, neighbour: bool) -> list[dict[str, Any]]:
    """Commit events of rank 0, in order."""
    with tempfile.TemporaryDirectory() as folder:
        double = str(ROOT / "tests" / "multiprocess" / "two_nodes.py")
        command = [sys.executable, *([double] if neighbour else ["-m", "hpcore"]), "run"]
        command += [f"--nproc={ranks}", "--standbys=0"]
        command += [f"--log-dir={folder}", __file__, "worker", str(mib), str(steps), str(every)]
        path = os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        if neighbour:
            environment |= {"BENCH_NEIGHBOUR": "1"}
            environment.setdefault("HPCORE_FABRIC", "tcp@lo")
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        with open(Path(folder) / "events.jsonl") as lines:
            events = [json.loads(line) for line in lines]
    return [e for e in events if e["event"] == "commit" and e["rank"] == 0]


def memcpy_gb_per_s(mib: int) -> float:
    """One thread, memory touched before."""
    import torch

    source = torch.ones(mib << 20, dtype=torch.uint8)
    into = torch.zeros_like(source)
    torch.set_num_threads(1)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        into.copy_(source)
        times.append(time.perf_counter() - begun)
    return (mib << 20) / min(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--neighbour", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    told: dict[str, Any] = {"state_mib": options.mib, "ranks": options.ranks}
    steps: dict[int, list[float]] = {0: [], 1: []}
    stalls: list[float] = []
    for _ in range(options.turns):
        for every in (0, 1):
            commits = run(options.mib, options.steps, options.ranks, every, options.neighbour)
            begins = [event["begin_ns"] for event in commits[3:]]  # memory is touched by then
            steps[every] += [(b - a) / 1e9 for a, b in itertools.pairwise(begins)]
            stalls += [event["stall_ns"] / 1e9 for event in commits[3:] if "stall_ns" in event]
    told["step_s"] = {f"every={k}": round(statistics.median(v), 4) for k, v in steps.items()}
    told["stall_s"] = round(statistics.median(stalls), 5)
    told["stall_of_step"] = round(told["stall_s"] / told["step_s"]["every=0"], 4)
    told["memcpy_gb_per_s"] = round(memcpy_gb_per_s(options.mib), 2)
    print(json.dumps(told))
    if options.json:
        Path(options.json).write_text(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        train(*map(int, sys.argv[2:5]))
    else:
        main()
