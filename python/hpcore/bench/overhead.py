"""`hpcore bench overhead`: what the protection costs, as step time against DDP over Gloo under
torchrun.

Both train the demo's model on the same samples with four ranks; runs alternate, so that what else
the machine does hits both.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcore.agent.agent import Agent
from hpcore.agent.options import AgentOptions
from hpcore.bench import overhead_ddp
from hpcore.bench.protection import ProtectionOptions, measure_into
from hpcore.bench.result import Report, Result
from hpcore.demo import text
from hpcore.demo.plan import Plan, full_plan
from hpcore.demo.run_record import RunRecord
from hpcore.demo.runner import example_script
from hpcore.errors import HpcoreError

WARM_UP_STEPS = 5


@dataclass(frozen=True)
class OverheadOptions:
    """Rounds of one run each, `steps` steps a run."""

    rounds: int = 4
    steps: int = 60
    say: Callable[[str], None] = print
    protection: ProtectionOptions = field(default_factory=ProtectionOptions)


def measure(options: OverheadOptions) -> Report:
    """Runs both in turn. Raises HpcoreError if a run fails or they do not train alike."""
    report = Report("overhead")
    plan = replace(full_plan(), steps=options.steps + WARM_UP_STEPS, faults=(), resizes=())
    short = replace(plan, steps=WARM_UP_STEPS)
    own: list[float] = []
    ddp: list[float] = []
    cpu: dict[str, list[float]] = {"hpcore": [], "gloo": []}
    with tempfile.TemporaryDirectory(prefix="hpcore-bench-") as name:
        folder = Path(name)
        data = folder / "text.hpd"
        text.build(data, plan.text_bytes)
        for number in range(options.rounds):
            before = _cpu_s()
            times, loss = _hpcore(plan, folder / f"hpcore{number}", data)
            between = _cpu_s()
            other, other_loss = _ddp(plan, folder / f"ddp{number}.json", data)
            cpu["hpcore"].append(between - before)
            cpu["gloo"].append(_cpu_s() - between)
            own += times
            ddp += other
            options.say(f"  round {number + 1}: last loss {loss:.3f} and {other_loss:.3f}")
            if not abs(loss - other_loss) < 0.2 * other_loss:
                raise HpcoreError(f"the contenders do not train alike: {loss} and {other_loss}")
        before = _cpu_s()
        _hpcore(short, folder / "short", data)
        between = _cpu_s()
        _ddp(short, folder / "short.json", data)
        start = {"hpcore": between - before, "gloo": _cpu_s() - between}
    case = f"step/transformer-{plan.layers}x{plan.width}"
    report.add(Result(case, "step_time", "s", own)).hold_against("gloo", ddp, "DDP, torchrun")
    a_step = {n: [(total - start[n]) / options.steps for total in cpu[n]] for n in cpu}
    result = report.add(Result(case, "step_cpu", "s", a_step["hpcore"]))
    result.hold_against("gloo", a_step["gloo"], "DDP, torchrun")
    measure_into(report, options.protection)
    report.notes.append(
        "step_cpu: processor time of all ranks a step, less that of a run of "
        f"{WARM_UP_STEPS} steps: what else the machine does hardly moves it"
    )
    return report


def _hpcore(plan: Plan, folder: Path, data: Path) -> tuple[list[float], float]:
    command = [str(example_script()), *plan.arguments(str(data))]
    command.remove("--ledger")
    options = AgentOptions(nproc=plan.nproc, command=command, log_dir=str(folder), terminal=False)
    code = Agent(options).run()
    if code:
        raise HpcoreError(f"the run of train_text.py ended with {code}: see {folder}")
    lines = (folder / "events.jsonl").read_text().splitlines()
    commits = RunRecord.of(json.loads(line) for line in lines).ordered()
    return _gaps([c.ns for c in commits]), commits[-1].loss


def _ddp(plan: Plan, out: Path, data: Path) -> tuple[list[float], float]:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(plan.nproc), str(overhead_ddp.__file__)),
        *(str(example_script()), str(data), str(plan.steps), str(out)),
    ]
    package = str(Path(overhead_ddp.__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)
    if done.returncode:
        said = done.stderr.partition("Traceback")[0]  # by the ranks, before the launcher's own
        raise HpcoreError(
            f"torchrun ended with {done.returncode}: {said[-2000:]}\n{done.stderr[-500:]}"
        )
    found = json.loads(out.read_text())
    return _gaps(found["ns"]), float(found["loss"])


def _cpu_s() -> float:
    """Processor time of all descendants that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _gaps(stamps: list[int]) -> list[float]:
    gaps = [(b - a) / 1e9 for a, b in itertools.pairwise(stamps)]
    return gaps[WARM_UP_STEPS:]
