"""Whether the disturbed run was the undisturbed one: a list of checks, each with what was found.
Pure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hpcore.demo.plan import Plan
from hpcore.demo.recoveries import Recovery
from hpcore.demo.run_record import RunRecord, incarnations


@dataclass(frozen=True)
class Check:
    """One claim and whether it holds; `found` says what was seen, in figures."""

    name: str
    holds: bool
    found: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json."""
        return asdict(self)


def constant_steps(record: RunRecord, nproc: int) -> int:
    """Number of leading steps that were committed by `nproc` ranks."""
    for commit in record.ordered():
        if commit.world_size != nproc:
            return commit.step
    return len(record.commits)


def checks_of(
    plan: Plan,
    calm: RunRecord,
    disturbed: RunRecord,
    recoveries: list[Recovery],
    codes: tuple[int, int],
) -> list[Check]:
    """All checks; the demo succeeds if each holds."""
    return [
        _ended(codes),
        _all_faults(plan, recoveries),
        _every_step_once(plan, calm, disturbed),
        _bits(plan, calm, disturbed),
        _survivors(recoveries),
        _resized(plan, disturbed),
        _global_batch(plan, calm, disturbed),
        _ledger(plan, calm, disturbed),
    ]


def _ended(codes: tuple[int, int]) -> Check:
    return Check(
        "both runs ended by themselves", codes == (0, 0), f"exit codes {codes[0]} and {codes[1]}"
    )


def _all_faults(plan: Plan, recoveries: list[Recovery]) -> Check:
    fired, planned = len(recoveries), len(plan.faults)
    back = sum(
        bool(r.generation) and (r.interrupted or "first_step" in r.phases_ms) for r in recoveries
    )
    return Check(
        "every planned fault happened, and training went on after it",
        fired == planned and back == planned,
        f"{fired} of {planned} happened, {back} recovered",
    )


def _every_step_once(plan: Plan, calm: RunRecord, disturbed: RunRecord) -> Check:
    wanted = list(range(plan.steps))
    runs = (calm, disturbed)
    missing = sum(plan.steps - len(run.commits) for run in runs)
    repeated = sum(len(run.repeated) for run in runs)
    return Check(
        "each step was committed exactly once",
        all(sorted(run.commits) == wanted and not run.repeated for run in runs),
        f"{plan.steps} steps a run, {missing} missing, {repeated} repeated",
    )


def _bits(plan: Plan, calm: RunRecord, disturbed: RunRecord) -> Check:
    """Losses compared as float hex: every bit."""
    steps = range(constant_steps(disturbed, plan.nproc))
    unequal = [
        step
        for step in steps
        if step not in calm.commits
        or step not in disturbed.commits
        or calm.commits[step].loss.hex() != disturbed.commits[step].loss.hex()
    ]
    found = f"{len(steps) - len(unequal)} of {len(steps)} losses equal, all 64 bits"
    if unequal:
        found += f"; first unequal: step {unequal[0]}"
    return Check(
        f"the loss of every step on {plan.nproc} ranks is that of the undisturbed run, to the bit",
        bool(steps) and not unequal,
        found,
    )


def _survivors(recoveries: list[Recovery]) -> Check:
    all_of_them = sum(r.survivors for r in recoveries)
    kept = sum(r.survivors_kept for r in recoveries)
    return Check(
        "survivors are the same processes as before (PIDs)",
        bool(recoveries) and kept == all_of_them > 0,
        f"{kept} of {all_of_them}, over all recoveries",
    )


def _resized(plan: Plan, disturbed: RunRecord) -> Check:
    sizes = [commit.world_size for commit in disturbed.ordered()]
    runs = [size for i, size in enumerate(sizes) if i == 0 or sizes[i - 1] != size]
    wanted = [plan.nproc, *(size for _, size in plan.resizes)]
    before, after = _processes_around(disturbed)
    return Check(
        "ranks were taken away and given back in place: the same processes",
        runs == wanted and bool(before) and before == after,
        f"world size {' -> '.join(map(str, runs))}; {len(before & after)} of {len(before)} "
        "processes are those from before",
    )


def _processes_around(record: RunRecord) -> tuple[set[int], set[int]]:
    """PIDs of the last roster before the first resize, and of the last roster of all."""
    resizes = record.of_kind("resize")
    rosters = sorted(record.rosters.values(), key=lambda roster: roster["generation"])
    old = [r for r in rosters if resizes and r["published_ns"] < resizes[0]["ns"]]
    if not old:
        return set(), set()
    return set(incarnations(old[-1]).values()), set(incarnations(rosters[-1]).values())


def _global_batch(plan: Plan, calm: RunRecord, disturbed: RunRecord) -> Check:
    sizes = {len(samples) for run in (calm, disturbed) for samples in run.samples.values()}
    return Check(
        "the global batch was the same in every step, whatever the number of ranks",
        sizes == {plan.global_batch},
        f"{', '.join(map(str, sorted(sizes)))} samples",
    )


def _ledger(plan: Plan, calm: RunRecord, disturbed: RunRecord) -> Check:
    """Each step used the same samples in both runs, and no sample was used twice (the demo stays in
    one epoch).
    """
    differing = [
        step
        for step in range(plan.steps)
        if sorted(calm.samples.get(step, [])) != sorted(disturbed.samples.get(step, []))
    ]
    used = [sample for samples in disturbed.samples.values() for sample in samples]
    once = len(used) == len(set(used)) == plan.steps * plan.global_batch
    return Check(
        "sample ledger: every sample position was trained on exactly once, in its step",
        once and not differing,
        f"{len(set(used))} different samples of {plan.steps * plan.global_batch} positions, "
        f"{len(differing)} steps with others than in the undisturbed run",
    )
