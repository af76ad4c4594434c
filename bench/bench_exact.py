"""What exact mode costs: steps of the demo's model with and without it, run by run, ABBA.

Run: PYTHONPATH=python python bench/bench_exact.py [--ranks 2] [--steps 40] [--turns 4]
[--width 128] [--micro-batch 4] [--json FILE]. Told are the time of a step and the processor time
of all ranks a step, that of a short run taken off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from hpcore.agent.agent import Agent
from hpcore.agent.options import AgentOptions
from hpcore.bench.overhead import _cpu_s
from hpcore.bench.result import Report, Result
from hpcore.demo import text
from hpcore.demo.plan import Plan, full_plan
from hpcore.demo.runner import example_script

WARM_UP = 5
MODES = ("exact", "plain")


def run(plan: Plan, folder: Path, data: Path, mode: str, steps: int) -> tuple[list[float], float]:
    """Gaps between commits, and the processor time of all ranks."""
    plan = replace(plan, steps=WARM_UP + steps)
    command = [str(example_script()), *plan.arguments(str(data))]
    command.remove("--ledger")
    command += ["--exact"] if mode == "exact" else []
    options = AgentOptions(nproc=plan.nproc, command=command, log_dir=str(folder), terminal=False)
    before = _cpu_s()
    code = Agent(options).run()
    used = _cpu_s() - before
    if code:
        raise SystemExit(f"a run ended with {code}: see {folder}")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    at = [e["ns"] for e in events if e["event"] == "commit" and e["rank"] == 0]
    gaps = [(b - a) / 1e9 for a, b in itertools.pairwise(at)]
    return gaps[WARM_UP - 1 :], used


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    for name, value in {
        "ranks": 2,
        "steps": 40,
        "turns": 4,
        "width": 128,
        "micro-batch": 4,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json")
    args = parser.parse_args()
    plan = replace(
        full_plan(),
        nproc=args.ranks,
        width=args.width,
        micro_batch=args.micro_batch,
        faults=(),
        resizes=(),
    )
    steps: dict[str, list[float]] = {mode: [] for mode in MODES}
    used: dict[str, list[float]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="hpcore-bench-") as name:
        folder = Path(name)
        data = folder / "text.hpd"
        text.build(data, 4 << 20)
        start = {m: run(plan, folder / f"short-{m}", data, m, 1)[1] for m in MODES}
        for turn in range(args.turns):
            for mode in MODES if turn % 2 == 0 else reversed(MODES):
                gaps, cpu_s = run(plan, folder / f"{mode}{turn}", data, mode, args.steps)
                steps[mode] += gaps
                used[mode].append((cpu_s - start[mode]) / (args.steps - 1))
            medians = {mode: statistics.median(steps[mode]) for mode in MODES}
            print(f"  turn {turn + 1}: {medians['exact'] / medians['plain']:.3f} times the step")
    case = f"step/transformer-{plan.layers}x{plan.width}/ranks={plan.nproc}"
    report = Report("exact")
    for metric, found in (("step_time", steps), ("step_cpu", used)):
        result = report.add(Result(case, metric, "s", found["exact"]))
        result.hold_against("plain", found["plain"], "exact=False")
        ratio = statistics.median(found["exact"]) / statistics.median(found["plain"])
        print(f"{metric}: exact mode takes {100 * (ratio - 1):+.1f}%")
    if args.json:
        Path(args.json).write_text(json.dumps(report.to_dict(), indent=1))


if __name__ == "__main__":
    main()
