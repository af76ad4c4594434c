"""What report.json holds and report.html shows, as one plain dict. Pure, but for the hardware and
the date.
"""

from __future__ import annotations

import datetime
import itertools
import statistics
from typing import Any

from hpcore.bench.result import commit, hardware
from hpcore.demo.plan import Plan
from hpcore.demo.recoveries import Recovery, recoveries_of
from hpcore.demo.run_record import RunRecord, incarnations
from hpcore.demo.verdict import Check, checks_of, constant_steps


def outcome_of(
    plan: Plan, calm: RunRecord, disturbed: RunRecord, codes: tuple[int, int], wall_s: float
) -> dict[str, Any]:
    """The demo's outcome from the records of both runs."""
    titles = {(f.point, f.action, f.rank): f.title for f in plan.faults}
    recoveries = recoveries_of(disturbed, titles)
    checks = checks_of(plan, calm, disturbed, recoveries, codes)
    return {
        "demo": plan.name,
        "ok": all(check.holds for check in checks),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "hardware": hardware(),
        "wall_s": round(wall_s, 1),
        "plan": _plan(plan),
        "summary": _summary(plan, calm, disturbed, recoveries, checks),
        "checks": [check.to_dict() for check in checks],
        "recoveries": [{**r.to_dict(), "at_s": disturbed.seconds(r.fault_ns)} for r in recoveries],
        "runs": {"undisturbed": _run(plan, calm), "disturbed": _run(plan, disturbed)},
        "processes": _processes(disturbed),
        "resizes": _resizes(disturbed),
    }


def _plan(plan: Plan) -> dict[str, Any]:
    names = (
        "nproc",
        "standbys",
        "steps",
        "global_batch",
        "micro_batch",
        "context",
        "width",
        "layers",
    )
    return {
        **{name: getattr(plan, name) for name in names},
        "faults": [fault.rule for fault in plan.faults],
        "resizes": [list(resize) for resize in plan.resizes],
    }


def _summary(
    plan: Plan,
    calm: RunRecord,
    disturbed: RunRecord,
    recoveries: list[Recovery],
    checks: list[Check],
) -> dict[str, Any]:
    equal = constant_steps(disturbed, plan.nproc)
    differences = [
        abs(calm.commits[s].loss - disturbed.commits[s].loss)
        for s in range(plan.steps)
        if s in calm.commits and s in disturbed.commits
    ]
    ready = [r.total_ms - r.phases_ms["first_step"] for r in recoveries if _from_warm(r)]
    return {
        "faults": len(recoveries),
        "checks_held": sum(check.holds for check in checks),
        "checks": len(checks),
        "steps": plan.steps,
        "steps_bit_equal_wanted": equal,
        "largest_difference_before_resize": max(differences[:equal], default=None),
        "largest_difference_after_resize": max(differences[equal:], default=None),
        "recovery_ms_median": statistics.median(ready) if ready else None,
        "recovery_ms_median_of": len(ready),
        "survivors_kept": sum(r.survivors_kept for r in recoveries),
        "survivors": sum(r.survivors for r in recoveries),
        "step_ms_median": _median_step_ms(calm),
        "tokens_per_s_undisturbed": _tokens_per_s(plan, calm),
        "tokens_per_s_disturbed": _tokens_per_s(plan, disturbed),
        "final_loss": calm.ordered()[-1].loss if calm.commits else None,
    }


def _from_warm(recovery: Recovery) -> bool:
    """Whether this recovery ended, and waited neither for the detection of a hang nor for a cold
    replacement.
    """
    hang = recovery.action in ("sigstop", "hang")
    return "first_step" in recovery.phases_ms and "replace" not in recovery.phases_ms and not hang


def _median_step_ms(record: RunRecord) -> float | None:
    stamps = [c.ns for c in record.ordered()]
    gaps = [(b - a) / 1e6 for a, b in itertools.pairwise(stamps)]
    return statistics.median(gaps) if gaps else None


def _tokens_per_s(plan: Plan, record: RunRecord) -> float | None:
    """From the first to the last commit, faults and recoveries and all."""
    commits = record.ordered()
    if len(commits) < 2 or commits[-1].ns <= commits[0].ns:
        return None
    return plan.tokens_per_step * (len(commits) - 1) / ((commits[-1].ns - commits[0].ns) / 1e9)


def _run(plan: Plan, record: RunRecord) -> dict[str, Any]:
    """Per step: loss (also as hex: every bit), when it was committed, world size, tokens/s since
    the one before.
    """
    rows = []
    last: int | None = None
    for c in record.ordered():
        rate = plan.tokens_per_step / ((c.ns - last) / 1e9) if last and c.ns > last else None
        row = {
            "step": c.step,
            "at_s": record.seconds(c.ns),
            "loss": c.loss,
            "loss_hex": c.loss.hex(),
        }
        rows.append(
            {**row, "world_size": c.world_size, "generation": c.generation, "tokens_per_s": rate}
        )
        last = c.ns
    return {"steps": rows}


def _processes(record: RunRecord) -> list[dict[str, Any]]:
    """Rank -> pid of every generation."""
    return [
        {
            "generation": generation,
            "at_s": record.seconds(roster["published_ns"]),
            "reason": roster.get("reason", ""),
            "pids": [pid for _, pid in sorted(incarnations(roster).items())],
        }
        for generation, roster in sorted(record.rosters.items())
    ]


def _resizes(record: RunRecord) -> list[dict[str, Any]]:
    """Each resize: asked -> the first commit at the new size; `stall_ms` is the longest gap between
    commits around it.
    """
    found = []
    for event in record.of_kind("resize"):
        ordered = record.ordered()
        after = [c for c in ordered if c.ns > event["ns"] and c.world_size == event["to"]]
        if not after:
            continue
        first = after[0]
        before = [c for c in ordered if c.ns < first.ns]
        gap = (first.ns - before[-1].ns) / 1e6 if before else None
        found.append(
            {
                **{"to": event["to"], "step": first.step, "at_s": record.seconds(event["ns"])},
                **{"asked_to_commit_ms": (first.ns - event["ns"]) / 1e6, "gap_ms": gap},
            }
        )
    return found
