"""`hpcore bench collectives`: the operations of the hpcore backend beside Gloo's, in the same
processes, turn by turn.

A sample is the time of one blocking call from Python, that of the slowest rank. Each contender's
result is checked before it is timed. Bandwidth is bus bandwidth (see exercises), held against Gloo
and against memcpy: the copies that nobody can avoid (see exercises.COPIES), at the speed at which
all ranks at once copy, into memory of their own, what the next rank has just written.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from hpcore.bench.exercises import COPIES, FACTORS, Case, Exercise
from hpcore.bench.ranks import busy_loop, run_ranks
from hpcore.bench.result import Report, Result

KIB, MIB = 1 << 10, 1 << 20
SIZES = (8, 64, 512, 4 * KIB, 32 * KIB, 256 * KIB, MIB, 2 * MIB, 8 * MIB, 64 * MIB)
BANDWIDTH_FROM_BYTES = 64 * KIB
BLOCKS = 5
FEWEST, MOST = 10, 4000
CONTENDERS = ("hpcore", "gloo")


@dataclass(frozen=True)
class CollectivesOptions:
    """What is measured: `seconds_a_case` is for each contender of a case."""

    operations: Sequence[str] = tuple(FACTORS)
    dtypes: Sequence[str] = ("float32", "bfloat16")
    sizes: Sequence[int] = SIZES
    ranks: Sequence[int] = (2, 4)
    oversubscribed: bool = True
    seconds_a_case: float = 0.4
    say: Callable[[str], None] = print

    def cases(self, ranks: int) -> list[Case]:
        """bfloat16 differs where numbers are added: it is run for the reductions only."""
        return [
            case
            for operation in self.operations
            for dtype in self.dtypes
            if dtype == "float32" or operation in ("all_reduce", "reduce_scatter")
            for case in (Case(operation, dtype, size) for size in self.sizes)
            if case.fits(ranks)
        ]


@dataclass
class Times:
    """Seconds of each call by contender, of the slowest rank; and of a copy of the same size."""

    case: Case
    calls: dict[str, list[float]] = field(default_factory=dict)
    copies: list[float] = field(default_factory=list)


def measure(options: CollectivesOptions) -> Report:
    """Runs all cases. Blocks for minutes; raises HpcoreError if a result is wrong."""
    report = Report("collectives")
    import torch

    torch.set_num_threads(1)  # in the ranks too: what is measured is the backend
    for ranks in options.ranks:
        options.say(f"{ranks} ranks, {len(options.cases(ranks))} cases")
        _add(report, _run(options, ranks, options.cases(ranks)), ranks, str(ranks))
    if options.oversubscribed:
        ranks = max(options.ranks)
        cases = [c for c in options.cases(ranks) if c.operation == "all_reduce"]
        cases = [c for c in cases if c.dtype == "float32"]
        options.say(f"{ranks} ranks beside a busy loop, {len(cases)} cases")
        with busy_loop():
            _add(report, _run(options, ranks, cases), ranks, f"{ranks}+busy")
    report.notes.append(
        "latency: one blocking call from Python, the slowest rank; bandwidth: bus bandwidth, "
        "factor x size / latency, factor for n ranks: all_reduce 2(n-1)/n, broadcast 1, others "
        "(n-1)/n, size that of the larger buffer of a rank"
    )
    report.notes.append(
        "memcpy: the bandwidth if each rank did nothing but the copies that it cannot avoid, at "
        "the speed at which all ranks at once copy what another has just written; for n ranks and "
        "size S: all_reduce 2(n-1)/n S + (n+1)/2n S, broadcast S, all_gather S + S/n, "
        "reduce_scatter (n-1)/n S + (n+1)/2n S, all_to_all 2(n-1)/n S + S/n"
    )
    return report


def _run(options: CollectivesOptions, ranks: int, cases: list[Case]) -> list[Times]:
    name = f"bench-{os.getpid()}-{ranks}-{time.monotonic_ns()}"
    shared = mmap.mmap(-1, ranks * max(case.size_bytes for case in cases))

    def body(rank: int) -> list[Times]:
        with groups(name, rank, ranks) as found:
            return [
                _time(case, rank, ranks, found, options.seconds_a_case, shared) for case in cases
            ]

    found = run_ranks(ranks, body, timeout_s=1800.0)
    return [_slowest(times) for times in zip(*found, strict=True)]


@contextlib.contextmanager
def groups(name: str, rank: int, ranks: int) -> Any:
    """The default group `hpcore`, and one of Gloo over loopback beside it, by contender."""
    import torch.distributed as dist

    from hpcore import distributed

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.register()
    where = f"hpcore://{name}?rank={rank}&world_size={ranks}"
    dist.init_process_group("hpcore", init_method=where, timeout=timedelta(minutes=10))
    gloo = dist.new_group(backend="gloo", timeout=timedelta(minutes=10))
    yield {"hpcore": dist.group.WORLD, "gloo": gloo}
    dist.barrier()
    dist.destroy_process_group()


def _time(
    case: Case,
    rank: int,
    ranks: int,
    groups: dict[str, Any],
    seconds_a_case: float,
    shared: mmap.mmap,
) -> Times:
    import torch.distributed as dist

    exercise = Exercise(case, rank, ranks)
    counts = {}
    for name in CONTENDERS:
        exercise.check(groups[name], name)
        trial = agreed(max(seconds(partial(exercise.run, groups[name]), 3)))
        counts[name] = count_for(seconds_a_case / BLOCKS, trial)
    times = Times(case, {name: [] for name in CONTENDERS})
    for _ in range(BLOCKS):
        for name in CONTENDERS:
            dist.barrier(groups[name])
            times.calls[name] += seconds(partial(exercise.run, groups[name]), counts[name])
        if case.size_bytes >= BANDWIDTH_FROM_BYTES:
            times.copies += copies(case.size_bytes, rank, ranks, shared)
    return times


def copies(
    size_bytes: int, rank: int, ranks: int, shared: mmap.mmap, count: int = 4
) -> list[float]:
    """Seconds of a memcpy of what the next rank has just written, all ranks at once."""
    import torch
    import torch.distributed as dist

    own, other = (
        torch.frombuffer(shared, dtype=torch.uint8, count=size_bytes, offset=r * size_bytes)
        for r in (rank, (rank + 1) % ranks)
    )
    target = torch.empty_like(other)
    taken = []
    for turn in range(count + 1):
        own.fill_(turn)
        dist.barrier()
        taken += seconds(partial(target.copy_, other), 1)
        dist.barrier()
    return taken[1:]  # the first touched fresh pages


def agreed(value: float) -> float:
    """The largest among the ranks of the default group."""
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)


def count_for(budget_s: float, one_s: float) -> int:
    """How often something that takes `one_s` seconds is done in a block."""
    return int(min(MOST / BLOCKS, max(FEWEST / BLOCKS, budget_s / max(one_s, 1e-7))))


def seconds(call: Callable[[], Any], count: int) -> list[float]:
    """Times of so many calls."""
    clock = time.perf_counter_ns
    taken = []
    for _ in range(count):
        before = clock()
        call()
        taken.append((clock() - before) / 1e9)
    return taken


def _slowest(times: Iterable[Times]) -> Times:
    every = list(times)
    calls = {
        name: [max(call) for call in zip(*(t.calls[name] for t in every), strict=True)]
        for name in CONTENDERS
    }
    copies = [max(copy) for copy in zip(*(t.copies for t in every), strict=True)]
    return Times(every[0].case, calls, copies)


def _add(report: Report, found: list[Times], ranks: int, label: str) -> None:
    for times in found:
        case = times.case
        result = report.add(Result(case.name(label), "latency", "s", times.calls["hpcore"]))
        result.hold_against("gloo", times.calls["gloo"])
        if not times.copies:
            continue
        moved = FACTORS[case.operation](ranks) * case.size_bytes
        rates = {name: [moved / s for s in calls] for name, calls in times.calls.items()}
        result = report.add(Result(case.name(label), "bandwidth", "B/s", rates["hpcore"]))
        result.hold_against("gloo", rates["gloo"])
        least = COPIES[case.operation](ranks)
        result.hold_against("memcpy", [moved / (least * s) for s in times.copies], "see notes")
