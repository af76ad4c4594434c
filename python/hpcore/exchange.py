"""State between live ranks: sources lay it open, receivers pull it.

One `all_gather_bytes` carries what receivers must know: every rank's layout digest and its way to
other hosts, every source's addresses, and from the first source of each replica group the manifest
(trees and tensor specs). Receivers build what they lack and pull as planned; sources publish
digests and go on at once: settled tensors cannot change before a commit, which needs the receivers;
fluid ones are served from the rollback shadow. Training thread only, apart from native threads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hpcore import _core
from hpcore.errors import JobStopped, PeerDead, TransferFailed
from hpcore.gathering import gather
from hpcore.manifest import install
from hpcore.membership.roster import Roster
from hpcore.replicas import HealPlan, ReplicaGroup
from hpcore.serving import Offer, Serving, regions_of
from hpcore.tracked import capture
from hpcore.transfer import CHUNK_BYTES, Way, apart, out_of_reach, reachable, shares

if TYPE_CHECKING:
    from hpcore.loop import Loop

PULL_THREADS = 2  # bench/: one thread does not fill the memory bus, a third adds nothing
PROGRESS_S = 1.0


def exchange(
    loop: Loop, worker: Any, roster: Roster, plan: HealPlan, group: ReplicaGroup
) -> tuple[dict[str, Any], int]:
    """Gives or takes; returns what a heal event tells of it, and when all ranks had come.

    Raises RosterChanged, MismatchError (on all ranks), CorruptData, JobStopped (on all ranks, if a
    receiver can reach no source).
    """
    serving: Serving | None = None
    message: dict[str, Any] = {"layout": loop.state.digest()}
    if worker.slot in group.sources and group.receivers:
        serving = Serving(
            loop, worker, roster, group, Offer(capture(loop.state.settled), loop.shadow.captured())
        )
        message |= serving.announcement()
    if loop.network.needed(roster):
        ready = loop.network.prepare()
        message["provider"] = loop.network.fabric.provider if ready else ""
        message["no_fabric"] = loop.network.why_not
    try:
        messages = gather(loop, message)
        gathered_ns = time.monotonic_ns()
        ways = [Way(m.get("provider", ""), m.get("no_fabric", "")) for m in messages]
        lost = out_of_reach(roster, plan.groups, dict(enumerate(ways)), loop.network.forced)
        if lost:
            raise JobStopped(lost)
        loop.drill.fire("heal", loop.drill_rank, roster.steps)
        if serving is not None:
            serving.publish()
            loop.serve(serving)
            serving = None
            return {}, gathered_ns
    finally:
        if serving is not None:
            serving.close()
    if worker.slot in group.receivers:
        return Receiver(loop, worker, roster, group, messages, ways).receive(), gathered_ns
    return {}, gathered_ns


class Receiver:
    """The newcomer's side: builds what it lacks, pulls as planned, puts in place, says how."""

    def __init__(
        self,
        loop: Loop,
        worker: Any,
        roster: Roster,
        group: ReplicaGroup,
        messages: Sequence[Mapping[str, Any]],
        ways: Sequence[Way],
    ) -> None:
        self._loop, self._worker, self._roster, self._group = loop, worker, roster, group
        members = {member.slot: member for member in roster.members}
        self._me = members[worker.slot]
        self._sources = [members[slot] for slot in group.sources]
        self._messages = messages
        forced, by_rank = loop.network.forced, dict(enumerate(ways))
        self._far = [apart(source, self._me, forced) for source in self._sources]
        self._able = [reachable(one, self._me, by_rank, forced) for one in self._sources]
        self._ways = ways

    def receive(self) -> dict[str, Any]:
        """Returns what the heal event tells."""
        manifest = self._messages[self._sources[0].rank]["manifest"]
        try:
            stats = install(self._loop.state, manifest, self._pull)
        except PeerDead as error:
            if not any(self._far):
                raise  # the agent knows, or will at once
            raise TransferFailed(f"rank {self._me.rank}: {error}") from error
        return self._told(stats)

    def _pull(self, tensors: list[Tensor]) -> Any:
        regions, network = regions_of(tensors), self._loop.network
        size = sum(count for _, count in regions)
        link = network.fabric.link_bytes_per_s if network.fabric is not None else 0.0
        rates = {"rack": link, "elsewhere": link} if link > 0 else {}
        plan = shares(
            self._roster,
            self._group,
            self._worker.slot,
            size,
            self._able,
            rates,
            network.forced,
        )
        receiver = _core.StateReceiver(
            self._worker,
            self._roster.generation,
            regions,
            CHUNK_BYTES,
            [self._address(index) for index in range(len(self._sources))],
            PULL_THREADS,
            plan=plan,
            fabric=network.fabric,
        )
        try:
            with self._progress(receiver, size):
                return receiver.pull(self._loop.recovery.deadline_s)
        finally:
            if network.fabric is not None:
                network.fabric.release(regions)

    def _address(self, index: int) -> Any:
        source, message = self._sources[index], self._messages[self._sources[index].rank]
        if not self._able[index]:
            way = self._ways[source.rank], self._ways[self._me.rank]
            why = next((w.why_not for w in way if w.why_not), "another provider than ours")
            return _core.SourceAddress(source.slot, 0, [], unreachable=why)
        if self._far[index]:
            return _core.SourceAddress(source.slot, 0, [], remote=message["fabric"])
        addresses = [(address, count) for address, count in message["addresses"]]
        return _core.SourceAddress(source.slot, source.pid, addresses)

    @contextmanager
    def _progress(self, receiver: Any, size: int) -> Iterator[None]:
        """A `heal_progress` event each second of a long pull."""
        over, begun = threading.Event(), time.monotonic()

        def tell() -> None:
            while not over.wait(PROGRESS_S):
                done = receiver.progress
                rate = round(done / (time.monotonic() - begun) / 1e9, 3)
                rank = self._me.rank
                self._loop.record("heal_progress", rank=rank, bytes=done, of=size, gb_per_s=rate)

        if size >> 28 == 0:  # is over before there is anything to tell
            yield
            return
        thread = threading.Thread(target=tell, name="hpcore-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _told(self, stats: Any) -> dict[str, Any]:
        names = ("bytes", "chunks", "refetched", "moved", "reread", "method", "notes")
        fields = {name: getattr(stats, name) for name in names}
        fields["gb_per_s"] = round(stats.bytes / max(stats.seconds, 1e-9) / 1e9, 3)
        taken = zip(self._sources, stats.bytes_by_source, strict=True)
        fields["taken"] = {str(source.rank): count for source, count in taken}
        if any(self._far):
            fields["fabric"] = self._loop.network.describe()
            ranks, mib = [source.rank for source in self._sources], stats.bytes / (1 << 20)
            print(
                f"hpcore: rank {self._me.rank} took {mib:.1f} MiB of state from ranks {ranks} by "
                f"{stats.method} at {fields['gb_per_s']} GB/s"
                + (f"; warning: {stats.notes}" if stats.notes else ""),
                file=sys.stderr,
                flush=True,
            )
        return fields
