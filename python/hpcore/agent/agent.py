"""The agent: owns the node's segment, starts and watches its workers, and keeps the job's ranks
filled.

`run()` belongs to one thread and blocks until the job has ended; `resize()` and `stop()` may be
called from any thread and from signal handlers. The path from a death to the next roster goes
native watch -> `Registrar.died` -> published; events are written and lines shown afterwards.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque

from hpcore.agent import system
from hpcore.agent.dispatch import Dispatcher
from hpcore.agent.ending import Ending
from hpcore.agent.node_registrar import FENCED
from hpcore.agent.options import SPARE_SLOTS, AgentOptions, default_log_dir
from hpcore.agent.parts import Parts, assemble
from hpcore.errors import InvalidArgument
from hpcore.membership.state import Cluster, Event, Resized, Stop, StopAsked

GRACE_S = 1.0
"""How long the ranks of a script without a Job may take to leave by themselves after one of them
failed."""


class Agent:
    """One job on this node. `run()` once."""

    def __init__(self, options: AgentOptions) -> None:
        """Raises InvalidArgument, with one line that names the option and the way out."""
        options.check()
        self.options = options
        self.log_dir = os.path.abspath(options.log_dir or default_log_dir())
        self.job = (
            options.nodes.job
            if options.nodes is not None
            else f"job-{os.getpid()}-{time.monotonic_ns() // 1_000_000:x}"
        )
        self._control_read, self._control_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._asked: deque[Event] = deque()
        self._stops_asked = 0
        self._stop: Stop | None = None
        self._parts: Parts | None = None
        self._last: Cluster | None = None

    def resize(self, ranks: int) -> None:
        """Asks for another number of ranks; takes effect at the next step's boundary. Does not
        block.

        Ranks that are let go stay as standbys and come back first. Raises InvalidArgument if there
        cannot be so many, or if the script has no Job.
        """
        most = self.options.slots - SPARE_SLOTS
        if not 1 <= ranks <= most:
            raise InvalidArgument(
                f"resize to {ranks}: this agent has room for 1 to {most} ranks; "
                "a larger max_nproc makes more"
            )
        policy = self.options.policy
        if policy is not None and policy.fit(ranks) != ranks:
            raise InvalidArgument(
                f"resize to {ranks}: the policy allows {policy.describe_sizes()} ranks"
            )
        cluster = self.cluster
        workers = cluster.workers.values() if cluster is not None and cluster.roster else ()
        if workers and not any(worker.recoverable for worker in workers):
            raise InvalidArgument(f"resize to {ranks}: the script has no hpcore.Job")
        self._ask(Resized(time.monotonic_ns(), ranks))

    def stop(self, code: int = 128 + signal.SIGTERM, reason: str = "asked to stop") -> None:
        """Ends the job with this exit code. A second call kills at once. Does not block."""
        self._stops_asked += 1
        self._ask(StopAsked(time.monotonic_ns(), code, reason))

    @property
    def cluster(self) -> Cluster | None:
        """What the agent knows now, or None before `run`; immutable."""
        parts = self._parts
        return parts.registrar.cluster if parts is not None else self._last

    @property
    def stop_reason(self) -> str:
        """Why the job ended, after `run`."""
        return self._stop.reason if self._stop is not None else ""

    @property
    def fenced(self) -> bool:
        """Whether this node had to stop, though the job may go on: it may join again."""
        return self._stop is not None and self._stop.code == FENCED

    def _ask(self, event: Event) -> None:
        self._asked.append(event)
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._control_write, b"x")
        except OSError:  # full: the agent is on its way; closed: the job is over
            pass

    def run(self) -> int:
        """Runs the job to its end and returns its exit code. Raises OSError if the job cannot be
        set up."""
        from hpcore import _core

        system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
        # A woken agent must not wait behind ranks that compute: they outnumber the cores.
        urgent = _core.prefer_quick_wakeups() == "realtime"
        try:
            return self._run()
        finally:
            if urgent:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    def _run(self) -> int:
        parts = self._parts = assemble(self.options, self.log_dir, self.job, self._wake)
        dispatcher = Dispatcher(parts, self._asked, self._control_read)
        try:
            self._note_start(parts)
            try:
                dispatcher.run()
            finally:
                self._stop = dispatcher.stop or Stop(70, "the agent failed")
                self._end(parts, dispatcher)
        finally:
            self._last = parts.registrar.cluster
            self._parts = None
            dispatcher.close()
            parts.close()
            control, self._control_write = self._control_write, -1
            os.close(control)
            os.close(self._control_read)
        return self._stop.code

    def _note_start(self, parts: Parts) -> None:
        options = self.options
        parts.journal.note(
            "start",
            pid=os.getpid(),
            nproc=options.nproc,
            standbys=options.standbys,
            argv=list(options.command),
            job=self.job,
            template=parts.forge.pid,
        )

    def _end(self, parts: Parts, dispatcher: Dispatcher) -> None:
        """Nothing is left afterwards."""
        assert self._stop is not None
        parts.journal.note("stop", code=self._stop.code, reason=self._stop.reason)
        parts.journal.flush()
        grace_s = 0.0 if dispatcher.asked_to_stop else self._grace_s(parts.registrar.cluster)
        if grace_s:
            parts.registrar.revoke()
        enough = max(self._stops_asked, 1)
        hurry = lambda: self.fenced or self._stops_asked > enough  # noqa: E731
        Ending(parts.table, parts.forge, dispatcher.note_exit, hurry).run(grace_s)

    def _grace_s(self, cluster: Cluster) -> float:
        """Only for ranks of a script without a Job, that are in a roster and so notice the
        revocation."""
        assert self._stop is not None
        if cluster.roster is None or self._stop.code == 0:
            return 0.0
        return 0.0 if any(w.recoverable for w in cluster.workers.values()) else GRACE_S
