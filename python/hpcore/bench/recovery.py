"""`hpcore bench recovery`: kill -> next committed step at full strength, four ranks and a standby.

The bench kills by itself, at a random moment of a step, and stamps CLOCK_MONOTONIC just before;
everything else is read from the job's events. Reported is the time from the kill to the first
commit of all four ranks, less the median step time before the kill, and its split. Beside it: one
memcpy of the same bytes, and with --peers what others need.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcore.agent.agent import Agent
from hpcore.agent.options import AgentOptions
from hpcore.bench import recovery_worker
from hpcore.bench.peers import PeerRun, run_peers
from hpcore.bench.result import Report, Result
from hpcore.demo.follower import EventFollower
from hpcore.demo.recoveries import PHASES, Recovery, recoveries_of
from hpcore.demo.run_record import Event, RunRecord
from hpcore.errors import DeadlineExceeded, HpcoreError

RANKS = 4
SETTLE_STEPS = 20
RECOVERY_LIMIT_S = 60.0


@dataclass(frozen=True)
class RecoveryOptions:
    """`kills` of ranks 1 to 3, half as many of rank 0, and half as many without state."""

    state_mib: int = 512
    kills: int = 20
    seed: int = 0
    peers: Sequence[PeerRun] = ()
    peers_python: str = ""
    say: Callable[[str], None] = print


@dataclass
class Samples:
    """Of one case: seconds from kill to commit, less a step and whole, and of each phase."""

    total_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    phases_s: dict[str, list[float]] = field(default_factory=dict)
    step_s: list[float] = field(default_factory=list)

    def add(self, recovery: Recovery, step_s: float) -> None:
        """Takes one kill."""
        self.total_s.append(recovery.total_ms / 1e3 - step_s)
        self.whole_s.append(recovery.total_ms / 1e3)
        self.step_s.append(step_s)
        for name in PHASES:
            if name in recovery.phases_ms:
                self.phases_s.setdefault(name, []).append(recovery.phases_ms[name] / 1e3)


class Assassin:
    """Kills ranks of a running job one after the other, in a thread beside the agent."""

    def __init__(self, victims: Sequence[int], seed: int, say: Callable[[str], None]) -> None:
        self._victims = victims
        self._rng = random.Random(seed)
        self._say = say
        self._changed = threading.Condition()
        self.record = RunRecord()
        self.step_s: list[float] = []
        self.error: BaseException | None = None
        self._warm = 0
        self._since = 0

    def on_event(self, event: Event) -> None:
        """Takes an event of the job."""
        with self._changed:
            self.record.add(event)
            self._warm += event["event"] == "warm"
            self._changed.notify_all()

    def run(self, stop_file: Path) -> None:
        """Kills all victims, then asks the job to end. Errors are left in `error`."""
        try:
            for number, victim in enumerate(self._victims):
                self._kill(number, victim)
        except BaseException as error:
            self.error = error
        finally:
            stop_file.touch()

    def _kill(self, number: int, victim: int) -> None:
        with self._changed:
            self._wait("a warm standby", lambda: self._warm > number)
            begin = len(self.record.commits)
            settled = begin + SETTLE_STEPS
            self._wait(f"{SETTLE_STEPS} steps", lambda: len(self.record.commits) >= settled)
            generation = max(self.record.rosters)
            stamps = [c.ns for c in self.record.ordered()[begin:]]
            members = self.record.rosters[generation]["members"]
        step_s = statistics.median(b - a for a, b in itertools.pairwise(stamps)) / 1e9
        pid = next(m["pid"] for m in members if m["rank"] == victim)
        time.sleep(self._rng.uniform(0, 2 * step_s))
        at = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        with self._changed:
            fault = {"rank": victim, "step": settled, "point": "any", "action": "sigkill"}
            self.record.add({"ns": at, "event": "fault_injected", **fault})
            self.step_s.append(step_s)
            self._wait(
                f"the first step after rank {victim} was killed (generation {generation})",
                lambda: max(self.record.first_commits) > generation,
            )
        self._say(f"  kill {number + 1}: rank {victim}, {(time.monotonic_ns() - at) / 1e6:.0f} ms")

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        if not self._changed.wait_for(ready, RECOVERY_LIMIT_S):
            raise DeadlineExceeded(f"bench recovery: no {what} within {RECOVERY_LIMIT_S:.0f} s")


def measure(options: RecoveryOptions) -> Report:
    """Runs all cases. Raises HpcoreError if a job did not come back."""
    report = Report("recovery")
    rng = random.Random(options.seed)
    zero = max(2, options.kills // 2)
    others = [rng.randrange(1, RANKS) for _ in range(options.kills)]
    size = f"{options.state_mib}MiB"
    options.say(f"{RANKS} ranks, 1 standby, {size} of state each: {len(others)} + {zero} kills")
    by_victim = _job(options.state_mib, [*others, *([0] * zero)], options)
    copies = memcpy_s(options.state_mib << 20)
    peers = run_peers(options.peers, options.peers_python, options.state_mib, options.say)
    for case, samples in (("kill", by_victim[False]), ("kill-rank0", by_victim[True])):
        result = _results(report, f"{case}/{size}", samples)
        result.hold_against("memcpy", copies, "one thread, warm pages")
        for peer in peers:
            if peer.rank0 == (case == "kill-rank0") and peer.samples_s:
                result.hold_against(peer.name, peer.samples_s, peer.note)
    report.notes += [peer.failure for peer in peers if peer.failure]
    options.say(f"{RANKS} ranks without state: {zero} kills")
    without = _job(0, [1 + i % (RANKS - 1) for i in range(zero)], options)
    _results(report, "reform", without[False])
    report.notes.append(
        "kill_to_commit is less the job's own median step time, "
        f"{statistics.median(by_victim[False].step_s) * 1e3:.1f} ms; kill_to_commit_whole and "
        "first_step contain it, as it is when run again"
    )
    return report


def _results(report: Report, case: str, samples: Samples) -> Result:
    total = report.add(Result(case, "kill_to_commit", "s", samples.total_s))
    report.add(Result(case, "kill_to_commit_whole", "s", samples.whole_s))
    for name in PHASES:
        if name in samples.phases_s:
            report.add(Result(case, name, "s", samples.phases_s[name]))
    return total


def _job(state_mib: int, victims: Sequence[int], options: RecoveryOptions) -> dict[bool, Samples]:
    """One job and its kills; samples by whether rank 0 was the victim."""
    with tempfile.TemporaryDirectory(prefix="hpcore-bench-") as folder:
        stop_file = Path(folder) / "stop"
        assassin = Assassin(victims, options.seed, options.say)
        agent = Agent(
            AgentOptions(
                nproc=RANKS,
                standbys=1,
                command=[str(recovery_worker.__file__), str(state_mib), str(stop_file)],
                log_dir=folder,
                terminal=False,
            )
        )
        thread = threading.Thread(target=assassin.run, args=(stop_file,), daemon=True)
        with EventFollower(Path(folder) / "events.jsonl", assassin.on_event):
            thread.start()
            code = agent.run()
        if code:
            raise HpcoreError(f"the job of bench recovery ended with {code}: {_reason(assassin)}")
        thread.join(RECOVERY_LIMIT_S)
        if assassin.error is not None:
            raise assassin.error
        found = {False: Samples(), True: Samples()}
        recoveries = recoveries_of(assassin.record, {})
        for recovery, step_s in zip(recoveries, assassin.step_s, strict=True):
            found[recovery.rank == 0].add(recovery, step_s)
        return found


def _reason(assassin: Assassin) -> str:
    stops = assassin.record.of_kind("stop")
    return str(stops[-1].get("reason", "")) if stops else "the agent gave no reason"


def memcpy_s(size_bytes: int, repeats: int = 5) -> list[float]:
    """Seconds of one memcpy of so many bytes between touched pages, by one thread."""
    import numpy as np

    source: Any = np.ones(max(size_bytes, 1), dtype=np.uint8)
    target = np.zeros_like(source)
    target[:] = source
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        np.copyto(target, source)
        taken.append(time.perf_counter() - begin)
    return taken
