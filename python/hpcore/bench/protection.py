"""Cases of `hpcore bench overhead`: what shadow copies and comparisons cost a step, with every step
copied or compared.

An FSDP2 (shadow) or a replicated (compare) model of the given state a rank is trained by two ranks;
told is for how long the training thread waited, against the step without it and one thread's memcpy
of as much.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcore.agent.agent import Agent
from hpcore.agent.options import AgentOptions
from hpcore.bench.result import Report, Result
from hpcore.errors import HpcoreError

WIDTH = 1024
WARM_UP_STEPS = 3
RANKS = 2


@dataclass(frozen=True)
class ProtectionOptions:
    """State of a rank (parameters and AdamW's), and steps of a run."""

    mib: int = 128
    steps: int = 12
    say: Callable[[str], None] = print


def measure_into(report: Report, options: ProtectionOptions) -> None:
    """Adds the cases to a report. Raises HpcoreError if a run fails."""
    copied = _memcpy_s(options.mib)
    for kind, metric in (("shadow", "stall_ns"), ("compare", "compare_ns")):
        plain, _ = _run(kind, 0, "", options)
        steps, cost = _run(kind, 1, metric, options)
        case = f"{kind}/K=1/{options.mib}MiB"
        options.say(f"  {case}: {sum(cost) / len(cost) * 1e3:.2f} ms a step")
        result = report.add(Result(case, "stall", "s", cost))
        result.hold_against("step", plain, "the step without it")
        result.hold_against("memcpy", [copied], "one thread")
        report.add(Result(case, "step_time", "s", steps)).hold_against("unprotected", plain)


def _run(
    kind: str, every: int, metric: str, options: ProtectionOptions
) -> tuple[list[float], list[float]]:
    """Seconds a step, and of them those that `metric` of the commit events tells."""
    with tempfile.TemporaryDirectory(prefix="hpcore-bench-") as folder:
        numbers = [kind, str(every), str(options.mib), str(options.steps + WARM_UP_STEPS)]
        agent = AgentOptions(
            nproc=RANKS, command=[__file__, *numbers], log_dir=folder, terminal=False
        )
        code = Agent(agent).run()
        if code:
            raise HpcoreError(f"the run of {kind} ended with {code}")
        lines = (Path(folder) / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    commits = [e for e in events if e["event"] == "commit" and e["rank"] == 0][WARM_UP_STEPS:]
    begins = [event["begin_ns"] for event in commits]
    cost = [event[metric] / 1e9 for event in commits] if metric else []
    return [(b - a) / 1e9 for a, b in itertools.pairwise(begins)], cost


def _memcpy_s(mib: int) -> float:
    """Of memory that was touched before; the best of five."""
    into, source = bytearray(mib << 20), bytes(mib << 20)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        memoryview(into)[:] = source
        times.append(time.perf_counter() - begun)
    return min(times)


def train(kind: str, every: int, mib: int, steps: int) -> None:
    """A rank."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.fsdp import fully_shard

    import hpcore

    torch.set_num_threads(1)
    sharded = kind == "shadow"
    parts = RANKS if sharded else 1
    layers = max(1, mib * parts * (1 << 20) // (3 * 4 * WIDTH * WIDTH))
    model: nn.Module = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    job = hpcore.Job(
        global_batch=256 * RANKS,
        micro_batch=256,
        **{f"{kind}_every": every},  # type: ignore[arg-type]
    )
    if sharded:
        dist.init_process_group("hpcore")
        for layer in list(model.children()):
            fully_shard(layer)
        fully_shard(model)
        job.shard(model)
    else:
        job.replicate(model)
    optimizer = torch.optim.AdamW(model.parameters())
    job.track(model=model, optimizer=optimizer)
    for step in job.steps(None, total=steps):
        with step:
            for batch in step.micro_batches():
                data = torch.randn(len(batch.samples), WIDTH)
                (model(data).square().mean() * batch.weight).backward()
            step.commit(optimizer)


if __name__ == "__main__":
    train(sys.argv[1], *map(int, sys.argv[2:5]))
