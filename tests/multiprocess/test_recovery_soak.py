"""Many recoveries in one job leave no descriptor, mapping, thread or process behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from running import Run, alive, until

SCRIPT = str(Path(__file__).parents[1] / "scripts" / "train_endless.py")
RECOVERIES = 100
SETTLED = 10  # after these, everything that is made once has been made


def footprint(pid: int) -> dict[str, int]:
    """What a process holds: descriptors, threads, and mappings of shared memory."""
    with open(f"/proc/{pid}/maps") as maps:
        shared = sum("memfd:" in line or " rw-s" in line for line in maps)
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "shared mappings": shared,
    }


def test_recoveries_leave_nothing_behind(tmp_path: Path) -> None:
    with Run(tmp_path, [SCRIPT], nproc=3, standbys=1, preload=None) as run:
        survivor = run.wait("roster", generation=1)["members"][0]["pid"]
        before: dict[str, dict[str, int]] = {}
        for number in range(1, RECOVERIES + 1):
            run.wait("warm", count=number)
            roster = run.wait("roster", count=number)
            run.wait("first_commit", count=number)
            if number == SETTLED:
                before = {"agent": footprint(os.getpid()), "rank 0": footprint(survivor)}
            os.kill(roster["members"][1 + number % 2]["pid"], signal.SIGKILL)
        run.wait("first_commit", count=RECOVERIES + 1)
        run.wait("warm", count=RECOVERIES + 1)
        run.wait("exit", count=RECOVERIES)
        last = run.all("roster")[-1]
        after = {"agent": footprint(os.getpid()), "rank 0": footprint(survivor)}
        assert last["generation"] == RECOVERIES + 1
        assert last["members"][0]["pid"] == survivor
        pids = {event["pid"] for event in run.all("spawn")}
        living = {pid for pid in pids if alive(pid)}
        assert len(living) == 4
    assert after == before
    until(lambda: not any(alive(pid) for pid in pids), "all workers are gone")
