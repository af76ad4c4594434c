"""The agent's loop: hears deaths, mail, the template, exits and requests, and carries out what
follows.

One thread. Deaths are heard first; `Registrar` publishes before anything else is done about them.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections import deque
from typing import Any

from hpcore.agent import mail
from hpcore.agent.parts import Parts
from hpcore.agent.recruiting import Recruiter
from hpcore.agent.registrar import Outcome
from hpcore.agent.workers import WorkerProcess
from hpcore.membership.roster import Roster
from hpcore.membership.state import (
    Cluster,
    Event,
    FirstCommit,
    Resized,
    Spawn,
    Spawned,
    SpawnFailed,
    Stage,
    Stalled,
    Stop,
    StopAsked,
    Tick,
)


class Dispatcher:
    """`run()` until `stop` is known. `asked` is filled by others, who then write to the pipe behind
    `control_fd`."""

    def __init__(self, parts: Parts, asked: deque[Event], control_fd: int) -> None:
        self._watch = parts.watch
        self._forge = parts.forge
        self._relay = parts.relay
        self._journal = parts.journal
        self._table = parts.table
        self._supervisor = parts.supervisor
        self._registrar = parts.registrar
        self._keepers = parts.keepers
        self._recruiter = Recruiter(parts.options, parts.table, parts.journal)
        self._asked = asked
        self._control_fd = control_fd
        self.stop: Stop | None = None
        self.asked_to_stop = False
        self._stalled_generation = 0
        self._ranks: dict[int, int] = {}  # incarnation -> rank it had last
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._watch.fileno(), selectors.EVENT_READ, None)
        self._selector.register(control_fd, selectors.EVENT_READ, None)
        self._channel: socket.socket | None = None
        self._follow_forge()

    def run(self) -> None:
        """The whole life of the job, up to the reason why it ends."""
        self._feed(Tick(time.monotonic_ns()))
        while self.stop is None:
            self._turn()

    def close(self) -> None:
        """Closes what `run` waited with."""
        self._selector.close()

    def _turn(self) -> None:
        """One round of the loop; deaths first."""
        self._follow_forge()
        ready = self._selector.select(self._supervisor.timeout_s())
        self._hear_watch()
        for key, _ in ready:
            if self.stop is not None:
                break
            if isinstance(key.data, WorkerProcess):
                self._reap(key.data)
            elif key.fd == self._control_fd:
                self._hear_control()
            elif key.fileobj is self._channel:
                self._hear_forge()
        if self.stop is None and self._supervisor.due():
            self._look()
        self._journal.flush()

    def _poll(self) -> None:
        """What other nodes have asked for."""
        for outcome in self._registrar.poll():
            if self.stop is None:
                self._carry_out(outcome)

    def _feed(self, event: Event) -> None:
        self._carry_out(self._registrar.feed(event))

    def _carry_out(self, outcome: Outcome | None) -> None:
        """What is left to do after the registrar has published."""
        if outcome is None:
            return
        if outcome.ranks:
            self._table.set_ranks(outcome.ranks)
        if outcome.published is not None:
            self._on_roster(*outcome.published, outcome.revoked_ns)
        if outcome.stop is not None and self.stop is None:
            self.stop = outcome.stop
            return
        for slot in outcome.kill:
            worker = self._table.by_slot.get(slot)
            if worker is not None:
                self._table.signal(worker, signal.SIGKILL)
        self._spawn_all(outcome.spawn)

    def _on_roster(self, roster: Roster, published_ns: int, revoked_ns: int | None) -> None:
        if self._keepers is not None:
            self._keepers.follow(roster)
        self._journal.note_roster(roster, published_ns, revoked_ns)
        self._supervisor.judge.new_generation(published_ns / 1e9, roster.steps)
        ranks = {member.incarnation: member.rank for member in roster.members}
        self._ranks.update(ranks)
        for worker in self._table.living():
            rank = ranks.get(worker.incarnation)
            label = f"standby {worker.slot}" if rank is None else f"rank {rank}"
            self._relay.relabel(worker.incarnation, label)

    def _spawn_all(self, spawns: list[Spawn]) -> None:
        stop, failures = self._recruiter.hire(self._registrar.cluster, spawns)
        self.stop = self.stop or stop
        for failure in failures:
            if self.stop is None:
                self._feed(failure)

    def _hear_forge(self) -> None:
        answers = self._forge.answers()
        self._follow_forge()
        if self._forge.warning:
            self._journal.say(self._forge.warning)
            self._forge.warning = ""
        for answer in answers:
            if answer.pid:
                self._on_forked(self._table.forked(answer.request, answer.pid))
            else:
                worker = self._table.not_forked(answer.request)
                self._feed(SpawnFailed(time.monotonic_ns(), worker.rank, answer.reason))

    def _follow_forge(self) -> None:
        channel = self._forge.channel
        if channel is self._channel:
            return
        if self._channel is not None:
            self._selector.unregister(self._channel)
        self._channel = channel
        if channel is not None:
            self._selector.register(channel, selectors.EVENT_READ, None)

    def _on_forked(self, worker: WorkerProcess) -> None:
        self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
        now = time.monotonic_ns()
        role = "standby" if worker.rank is None else "rank"
        place = {"slot": worker.slot, "incarnation": worker.incarnation, "pid": worker.pid}
        self._journal.note(
            "spawn",
            **place,
            role=role,
            rank=worker.rank,
            log=worker.log_path,
            asked_ns=worker.asked_ns,
        )
        self._feed(Spawned(now, worker.slot, worker.incarnation, worker.pid, worker.rank))
        self._stage(worker.slot, worker.incarnation, now)

    def _hear_watch(self) -> None:
        while self.stop is None:
            event = self._watch.next_event(0.0)
            if event is None:
                return
            if event.kind == "death":
                self._on_death(event)
            elif event.kind == "state":
                self._stage(event.slot, event.incarnation, event.at_ns)
            else:
                self._on_mail(event)

    def _on_death(self, event: Any) -> None:
        self._carry_out(self._registrar.died(event.slot, event.incarnation, event.at_ns))
        worker = self._table.by_incarnation.get(event.incarnation)
        if worker is None or event.state == Stage.FINISHED:
            return
        self._journal.note(
            "death",
            ns=event.at_ns,
            slot=event.slot,
            rank=self._ranks.get(event.incarnation, worker.rank),
            incarnation=event.incarnation,
            pid=worker.pid,
            at_ns=event.at_ns,
        )

    def _stage(self, slot: int, incarnation: int, at_ns: int) -> None:
        before = self._registrar.cluster.workers.get(slot)
        outcome = self._registrar.stage_changed(slot, incarnation, at_ns)
        if outcome is None:
            return
        self._carry_out(outcome)
        worker = self._table.by_incarnation[incarnation]
        facts = self._registrar.cluster.workers.get(slot)
        if facts is None or (before is not None and before.stage is facts.stage):
            return
        if facts.stage is Stage.ATTACHED:
            self._journal.note("attach", slot=slot, incarnation=incarnation)
        elif facts.stage is Stage.WARM:
            self._journal.note("warm", slot=slot, incarnation=incarnation)
        elif facts.stage is Stage.TRAINING and worker.rank is not None:
            self._supervisor.judge.started((time.monotonic_ns() - worker.asked_ns) / 1e9)

    def _on_mail(self, event: Any) -> None:
        if event.mail_kind == mail.TIMELINE:
            self._journal.note_json(event.text)
            return
        cluster = self._registrar.cluster
        message = mail.event_of(event)
        if message is not None:
            self._feed(message)
        worker = cluster.workers.get(event.slot)
        member = cluster.member(worker) if worker is not None else None
        self._journal.note(
            "mail",
            ns=event.at_ns,
            slot=event.slot,
            rank=member.rank if member is not None else None,
            kind=event.mail_kind,
            step=event.step,
            torn=bool(event.flags & 1),
            text=event.text,
        )
        if event.mail_kind in (mail.FAULT, mail.SCRIPT_ERROR):
            self._relay.show(event.incarnation, event.text)

    def _reap(self, worker: WorkerProcess) -> None:
        if worker.pidfd >= 0:
            pidfd = worker.pidfd
            if not self._table.reap(worker):
                return
            self._selector.unregister(pidfd)
        self._hear_watch()  # its last words come before its end
        self.note_exit(worker)
        self._commit_first()
        if self.stop is None:
            assert worker.code is not None
            self._carry_out(self._registrar.exited(worker.slot, worker.incarnation, worker.code))

    def note_exit(self, worker: WorkerProcess) -> None:
        place = {"slot": worker.slot, "incarnation": worker.incarnation, "pid": worker.pid}
        self._journal.note("exit", **place, code=worker.code)

    def _commit_first(self) -> None:
        cluster = self._registrar.cluster
        if self._supervisor.first_commit(cluster) and cluster.roster is not None:
            self._feed(FirstCommit(time.monotonic_ns(), cluster.roster.generation))
            self._journal.note("first_commit", generation=cluster.roster.generation)

    def _look(self) -> None:
        cluster = self._registrar.cluster
        found = self._supervisor.look(cluster)
        if found.first_commit:
            self._commit_first()
        for worker in self._table.living():
            self._stage(worker.slot, worker.incarnation, time.monotonic_ns())
        for verdict in found.verdicts:
            self._kill_hanging(cluster, verdict.slot, verdict.reason)
        roster = cluster.roster
        if found.stalled and roster is not None and self._stalled_generation < roster.generation:
            self._stalled_generation = roster.generation
            self._feed(Stalled(time.monotonic_ns(), roster.generation, found.stalled))
        self._table.reap_orphans()
        self._table.recycle(roster.slots if roster is not None else ())
        if self.stop is None:
            self._feed(Tick(time.monotonic_ns()))
        self._poll()
        for event in self._keepers.events() if self._keepers is not None else ():
            self._journal.note(event.pop("event"), **event)

    def _kill_hanging(self, cluster: Cluster, slot: int, reason: str) -> None:
        worker = self._table.by_slot.get(slot)
        facts = cluster.workers.get(slot)
        if worker is None or facts is None:
            return
        self._table.signal(worker, signal.SIGKILL)
        self._supervisor.judge.forget(slot)
        member = cluster.member(facts)
        rank = member.rank if member is not None else None
        self._journal.note("hang", slot=slot, rank=rank, reason=reason, pid=worker.pid)
        name = f"rank {rank}" if member is not None else f"standby {slot}"
        self._journal.say(f"{name} (pid {worker.pid}) hangs: {reason}; it is killed")

    def _hear_control(self) -> None:
        try:
            os.read(self._control_fd, 4096)
        except BlockingIOError:
            pass
        self._poll()
        while self._asked and self.stop is None:
            event = self._asked.popleft()
            if isinstance(event, StopAsked):
                self.asked_to_stop = True
            if isinstance(event, Resized):
                self._journal.note("resize", to=event.target)
            self._feed(event)
