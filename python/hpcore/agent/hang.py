"""Which workers hang. Pure: judged against the job's own pace, with the clock and the looks given.

A worker hangs if it is stopped, if its sentinel's heartbeat is overdue, if all other members wait
for it in a reduction far longer than a step usually takes, or (a standby) if it takes far longer to
get warm than the ranks took to start.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from hpcore.membership.state import Stage

START, FORWARD, REDUCE, APPLY, IDLE, REFORM, HEAL, STANDBY, ENDED = range(9)
PHASES = ("START", "FORWARD", "REDUCE", "APPLY", "IDLE", "REFORM", "HEAL", "STANDBY", "ENDED")
HEARTBEAT_LIMIT_S = 0.5
STARVED_LIMIT_S = 5.0
STEP_LIMIT_S = 1.0
WARM_LIMIT_S = 10.0
STEPS_TO_KNOW = 3
"""Steps that must have been seen before the job's own pace is trusted."""


@dataclass(frozen=True)
class Look:
    """One worker at one moment. `process_state` is the letter of /proc/<pid>/stat; ages in seconds,
    negative: never."""

    slot: int
    stage: Stage
    process_state: str
    heartbeats: int
    heartbeat_age_s: float
    step: int
    phase: int
    progress_age_s: float
    commit_steps: int
    age_s: float  # since the fork
    member: bool
    starved: bool = False  # runnable, but the CPU is elsewhere


@dataclass(frozen=True)
class Verdict:
    """A worker to be killed, and why."""

    slot: int
    reason: str


@dataclass
class _Pulse:
    heartbeats: int = 0
    at_s: float = 0.0
    gap_s: float = 0.02
    stopped_looks: int = 0


@dataclass
class HangJudge:
    """Remembers the pace between looks. One thread."""

    deadline_s: float
    pulses: dict[int, _Pulse] = field(default_factory=dict)
    step_times: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    steps_seen: int = 0
    slowest_start_s: float = 0.0
    last_steps: int = -1
    last_steps_s: float = 0.0
    opened: tuple[float, int] | None = None  # when, and with how many steps

    def started(self, seconds: float) -> None:
        """A rank took this long from its fork to the first step."""
        self.slowest_start_s = max(self.slowest_start_s, seconds)

    def forget(self, slot: int) -> None:
        """The slot has, or will have, another worker."""
        self.pulses.pop(slot, None)

    def new_generation(self, now_s: float, steps: int) -> None:
        """A roster was published, with this many steps committed. The first step after it holds a
        heal: it does not tell how long a step takes."""
        self.last_steps, self.opened = -1, (now_s, steps)

    @property
    def step_limit_s(self) -> float:
        """How long the others may wait for one member."""
        if self.steps_seen < STEPS_TO_KNOW:
            return max(STEP_LIMIT_S, self.deadline_s)
        return max(STEP_LIMIT_S, 5 * statistics.median(self.step_times))

    def judge(self, now_s: float, looks: list[Look], generation_open: bool) -> list[Verdict]:
        """The verdicts of this look. Not to be called if the caller itself was late: all would look
        stopped."""
        verdicts = {}
        for look in looks:
            reason = self._pulse(now_s, look) or self._slow_start(look)
            if reason:
                verdicts[look.slot] = reason
        members = [look for look in looks if look.member]
        if generation_open and members:
            self._pace(now_s, members)
            for slot, reason in self._waited_for(members).items():
                verdicts.setdefault(slot, reason)
        return [Verdict(slot, reason) for slot, reason in verdicts.items()]

    def stalled(self, looks: list[Look]) -> str:
        """Why the generation as a whole does not move, with nobody in particular to blame; '' if it
        does."""
        members = [look for look in looks if look.member]
        waiting = (REDUCE, REFORM, HEAL)
        if not members or any(look.phase not in waiting for look in members):
            return ""
        least = min(look.progress_age_s for look in members)
        if least < max(self.deadline_s, self.step_limit_s):
            return ""
        phases = ", ".join(f"{PHASES[look.phase]} {look.step}" for look in members)
        return f"no rank has moved for {least:.1f} s ({phases})"

    def _pulse(self, now_s: float, look: Look) -> str:
        pulse = self.pulses.setdefault(look.slot, _Pulse(look.heartbeats, now_s))
        if look.process_state == "T":
            pulse.stopped_looks += 1
            return "stopped (SIGSTOP)" if pulse.stopped_looks >= 2 else ""
        pulse.stopped_looks = 0
        if look.process_state in "tZX" or not Stage.STARTING < look.stage < Stage.FINISHED:
            return ""
        beats = look.heartbeats - pulse.heartbeats
        if beats > 0:
            gap = (now_s - pulse.at_s) / beats
            pulse.gap_s += 0.2 * (gap - pulse.gap_s)
            pulse.heartbeats, pulse.at_s = look.heartbeats, now_s
        limit = max(HEARTBEAT_LIMIT_S, 10 * pulse.gap_s)
        if look.starved:
            limit = max(limit, STARVED_LIMIT_S)
        if look.heartbeats == 0 or look.heartbeat_age_s <= limit:
            return ""
        return f"no heartbeat for {look.heartbeat_age_s:.2f} s (limit {limit:.2f} s)"

    def _slow_start(self, look: Look) -> str:
        if look.member or look.stage >= Stage.WARM or not self.slowest_start_s:
            return ""
        limit = max(WARM_LIMIT_S, 4 * self.slowest_start_s)
        if look.age_s <= limit:
            return ""
        return (
            f"not warm {look.age_s:.1f} s after its start (ranks took {self.slowest_start_s:.1f} s)"
        )

    def _pace(self, now_s: float, members: list[Look]) -> None:
        steps = min(look.commit_steps for look in members)
        if self.last_steps < 0 and self.opened is not None and steps > self.opened[1] + 1:
            # Several went by before the first look: together with the heal they took no longer.
            done = steps - self.opened[1] - 1
            self.step_times.append((now_s - self.opened[0]) / done)
            self.steps_seen += done
        if self.last_steps >= 0 and steps > self.last_steps:
            self.step_times.append((now_s - self.last_steps_s) / (steps - self.last_steps))
            self.steps_seen += steps - self.last_steps
        if steps != self.last_steps:
            self.last_steps, self.last_steps_s = steps, now_s

    def _waited_for(self, members: list[Look]) -> dict[int, str]:
        """The one member that all others wait for, if there is one."""
        behind = [look for look in members if look.phase != REDUCE]
        if not behind:
            newest = max(look.step for look in members)
            behind = [look for look in members if look.step < newest]
        if len(behind) != 1 or len(members) < 2:
            return {}
        late = behind[0]
        limit = self.step_limit_s
        if late.phase in (REFORM, HEAL):
            limit = max(limit, self.deadline_s / 2)
        waits = min(look.progress_age_s for look in members if look is not late)
        if (
            late.phase == ENDED
            or late.stage is Stage.FINISHED
            or min(waits, late.progress_age_s) < limit
        ):
            return {}
        where = f"in phase {PHASES[late.phase]} of step {late.step}"
        return {late.slot: f"{where} for {late.progress_age_s:.2f} s while all others wait"}


def process_state(pid: int) -> str:
    """The letter of /proc/<pid>/stat; 'X' if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return chr(stat.read().rpartition(b") ")[2][0])
    except (OSError, IndexError):
        return "X"
