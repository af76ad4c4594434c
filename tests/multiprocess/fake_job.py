"""A stand-in for hpcore.Job: the loop of the contract on one integer, without torch.

usage: fake_job.py TOTAL STEP_S [FAULT]...: a negative STEP_S computes; FAULT is
who:step:point:action, e.g. 1:3:forward:sigkill; who: a rank, or s (a standby); points: forward
before_ready after_ready after_commit apply reform heal rehearsal start; actions: sigkill sigstop
exception hang exit. Each fault fires once in the job, or always if its action ends with "!".
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path

from hpcore import _core
from hpcore.membership.process import this_job, this_worker
from hpcore.membership.roster import Roster

TOTAL, STEP_S, FAULTS = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
START, FORWARD, REDUCE, APPLY, IDLE, REFORM, HEAL, STANDBY, ENDED = range(9)
FOREVER_S = 600.0


class Torn(Exception):
    """A fault after the commit."""


class Changed(Exception):
    """The generation is over."""


class FakeJob:
    def __init__(self) -> None:
        worker, job = this_worker(), this_job()
        assert worker is not None and job is not None
        self.worker, self.standby, self.log_dir = worker, job.standby, Path(job.log_dir)
        self.value, self.done, self.rank, self.generation = 1, 0, -1, 0
        self.roster: Roster | None = None
        worker.version = _core.VERSION_NONE
        worker.flags = worker.flags | _core.FLAG_RECOVERABLE

    def run(self) -> None:
        self.fault("start")
        if self.standby:
            self.fault("rehearsal")
            self.worker.progress(0, STANDBY)
            self.worker.state = _core.STATE_WARM
        else:
            self.worker.state = _core.STATE_TRAINING
        while True:
            try:
                self.reform()
                self.train()
                break
            except Changed:
                continue
        self.worker.flags = self.worker.flags & ~_core.FLAG_RECOVERABLE
        self.worker.progress(TOTAL, ENDED)
        print(f"done rank={self.rank} value={self.value}")

    def reform(self) -> None:
        """Waits for a roster newer than the last that names this worker, and heals if it must."""
        while True:
            found = self.worker.wait_roster(self.generation, FOREVER_S)
            assert found is not None
            self.generation, self.roster = found[0], Roster.from_bytes(found[1])
            rank = self.roster.rank_of(self.worker.slot)
            if rank is not None:
                break
            self.worker.version = _core.VERSION_NONE
            self.worker.progress(self.done, STANDBY)
        self.rank = rank
        self.worker.state = _core.STATE_TRAINING
        self.worker.progress(self.roster.steps, REFORM)
        self.fault("reform")
        self.heal(self.roster)

    def heal(self, roster: Roster) -> None:
        state = self.log_dir / f"state{roster.generation}"
        self.worker.progress(roster.steps, HEAL)
        self.fault("heal")
        if self.worker.slot not in roster.receivers:
            if roster.sources[0] == self.worker.slot:
                (self.log_dir / "new").write_text(f"{self.value} {self.done}")
                (self.log_dir / "new").rename(state)
            if self.worker.version == _core.VERSION_NONE:
                self.worker.version = self.done
            return
        while not state.exists():
            if self.worker.revoked(roster.generation):
                raise Changed
            time.sleep(0.001)
        self.value, self.done = (int(word) for word in state.read_text().split())
        assert self.done == roster.steps, f"healed to {self.done}, not {roster.steps}"
        self.worker.version = self.done

    def train(self) -> None:
        while self.done < TOTAL:
            try:
                self.step()
            except Torn:  # noqa: PERF203
                self.worker.version = _core.VERSION_TORN
                self.mail_fault(1)
            except (Changed, KeyboardInterrupt):
                raise
            except Exception:
                self.mail_fault(0)
        self.commit()

    def mail_fault(self, torn: int) -> None:
        self.worker.post(1, self.done, self.generation << 8 | torn, traceback.format_exc())
        raise Changed

    def step(self) -> None:
        self.worker.progress(self.done, FORWARD)
        self.fault("forward")
        if STEP_S < 0:  # compute
            until = time.monotonic() - STEP_S
            while time.monotonic() < until:
                pass
        time.sleep(max(0.0, STEP_S))
        self.fault("before_ready")
        self.commit()
        self.worker.version = _core.VERSION_APPLYING
        self.worker.progress(self.done, APPLY)
        try:
            self.fault("after_commit")
            value = self.value * 31 + self.done
            self.fault("apply")
        except Exception as error:
            raise Torn from error
        self.value = value % 1_000_003
        self.done += 1
        self.worker.version = self.done

    def commit(self) -> None:
        """Ready, then agreed, or Changed."""
        assert self.roster is not None
        self.worker.progress(self.done, REDUCE)
        if not self.worker.ready(self.generation, self.done):
            raise Changed
        self.fault("after_ready")
        slots = self.roster.slots
        said = self.worker.wait_commit(self.generation, self.done, slots, FOREVER_S)
        if said != "committed":
            raise Changed

    def fault(self, point: str) -> None:
        for index, fault in enumerate(FAULTS):
            who, step, where, action = fault.split(":")
            me = "s" if self.rank < 0 and self.standby else str(max(self.rank, 0))
            if self.rank < 0 and not self.standby:
                me = os.environ["RANK"]
            if (who, where) != (me, point) or (step != "*" and int(step) != self.done):
                continue
            if action.endswith("!") or self.worker.segment.fire_fault(index):
                self.hurt(action.rstrip("!"))

    def hurt(self, action: str) -> None:
        print(f"hurt rank={self.rank} {action}")
        if action == "exception":
            raise RuntimeError(f"injected in rank {self.rank}")
        if action == "exit":
            os._exit(9)
        if action == "hang":
            time.sleep(FOREVER_S)
        os.kill(os.getpid(), signal.SIGKILL if action == "sigkill" else signal.SIGSTOP)


def expected(total: int) -> int:
    """The value after `total` undisturbed steps."""
    value = 1
    for step in range(total):
        value = (value * 31 + step) % 1_000_003
    return value


if __name__ == "__main__":
    FakeJob().run()
