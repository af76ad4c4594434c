"""Where state is kept besides live replicas: shadow copies in host memory.

What is copied is what a newcomer would be sent: settled tensors as they lie, fluid ones from the
rollback shadow, trees, and what the rank alone knows. Training thread only, apart from the copying.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from hpcore.agent.shadow_memory import STORE_KEY, WANTED_KEY
from hpcore.checkpoints import Checkpoints
from hpcore.manifest import install, manifest_of
from hpcore.membership.roster import Roster
from hpcore.neighbour import NeighbourWait, is_leader
from hpcore.protection import Protection
from hpcore.shadow_copies import ShadowCopies, copy_out
from hpcore.tracked import capture
from hpcore.world import RosterWorld

if TYPE_CHECKING:
    from hpcore.loop import Loop
    from hpcore.replicas import HealPlan


class Tiers:
    """The copies of one worker's state; without `every` nothing is ever copied."""

    def __init__(self, loop: Loop, protection: Protection, agent_pid: int) -> None:
        self._loop = loop
        self._every = protection.shadow_every
        self._checkpoint_every = protection.checkpoint_every
        folder = protection.checkpoint_dir
        self.checkpoints = Checkpoints(folder) if folder else None
        self._agent_pid = agent_pid
        self._copies: ShadowCopies | None = None
        self._rank_local: Any = None  # of what was just read from elsewhere
        self.neighbour = NeighbourWait()
        self.stall_ns = 0
        """How long the training thread waited for the last copy."""

    def ask_for_keeper(self, worker: Any) -> None:
        """Before this worker can be named: other nodes are to hold its copies."""
        if self._every:
            worker.segment.store.set(WANTED_KEY, "1")

    def enter(self, rank: int) -> None:
        """This worker has a rank."""
        if not self._every:
            return
        if self._copies is None:
            descriptor = int(self._loop.worker.segment.store.get(STORE_KEY, 10.0))
            self._copies = ShadowCopies(self._agent_pid, descriptor, rank)
        self._copies.enter(rank)

    @property
    def on(self) -> bool:
        """Whether shadow copies are taken."""
        return self._copies is not None

    def joined(self) -> None:
        """The generation has begun: what is to be copied of this boundary and is not yet."""
        if self._copies is not None:
            self._copies.forget_after(self._loop.steps_done)
            self._agree_on_past(self._copies)
        if self.newest() != self._loop.steps_done:
            self._copy()

    def _agree_on_past(self, copies: ShadowCopies) -> None:
        """This node's memory holds nothing of a past that was given up, of other nodes' ranks
        neither: only then does its keeper go on."""
        loop, memory = self._loop, copies.memory
        roster = self._roster()
        if memory.era == loop.rewound or not is_leader(roster, loop.world.rank):
            return
        memory.set_era(-1)
        node = roster.members[loop.world.rank].node
        for member in roster.members:
            memory.forget_after(member.rank, loop.steps_done)
            if member.node == node:
                memory.confirm(member.rank, -1)
        memory.set_era(loop.rewound)

    def boundary(self) -> None:
        """A step has ended, or this rank has just got its state: starts a copy if one is due."""
        if self._loop.rehearsing:
            return
        self._copy()
        self._checkpoint()

    def _copy(self) -> None:
        loop, copies = self._loop, self._copies
        if copies is None or loop.steps_done % self._every:
            return
        begun = time.monotonic_ns()
        settled, fluid = capture(loop.state.settled), loop.shadow.captured()
        meta = {**manifest_of(settled, fluid), "rank_local": loop.rank_local.boundary}
        copies.take(loop.steps_done, meta, [*settled.tensors, *fluid.tensors])
        self.stall_ns = time.monotonic_ns() - begun

    def close(self) -> None:
        """Twice is fine."""
        if self._copies is not None:
            self._copies.close()
        self._copies = None
        if self.checkpoints is not None:
            self.checkpoints.settle()

    def _checkpoint(self) -> None:
        loop, checkpoints, step = self._loop, self.checkpoints, self._loop.steps_done
        every, rank, group = self._checkpoint_every, loop.world.rank, loop.shards.checkpoint_group
        if checkpoints is None or not every or not step or step % every:
            return
        if group is None and rank != 0:  # one replica speaks for all
            return
        state = (capture(loop.state.settled), loop.shadow.captured())
        checkpoints.save(rank, step, state, loop.rank_local.boundary, group)

    def saved(self) -> list[int]:
        """Steps of which there are durable checkpoints."""
        return [] if self.checkpoints is None else self.checkpoints.steps()

    def load_saved(self, step: int) -> int:
        """This rank's state becomes that of a durable checkpoint; returns bytes."""
        loop, checkpoints = self._loop, self.checkpoints
        assert checkpoints is not None
        checkpoints.settle()
        rank = loop.world.rank if loop.shards.modules else 0
        more, read = checkpoints.load(rank, step, loop.state)
        self._rank_local = more if rank == loop.world.rank else None
        return read

    def settle(self) -> None:
        """Returns when state may change."""
        if self._copies is not None:
            begun = time.monotonic_ns()
            self._copies.settle()
            self.stall_ns += time.monotonic_ns() - begun

    def confirm(self) -> None:
        """Before a step is agreed after which the next copy is taken: returns when the neighbour
        holds the last one, or does not come up with it. Raises RosterChanged.

        So the records of all ranks on their neighbours have a step in common at any time.
        """
        loop, copies = self._loop, self._copies
        if copies is None or loop.rehearsing or (loop.steps_done + 1) % self._every:
            return
        if not self.neighbour.expected(self._roster(), loop.world.rank):
            return
        begun = time.monotonic_ns()
        self.neighbour.wait(loop, copies, copies.memory.newest(copies.rank))
        self.stall_ns += time.monotonic_ns() - begun

    def told(self, roster: Roster) -> dict[str, Any]:
        """Which whole copies there are: of this rank, and (told by the first rank of a node) of
        ranks of other nodes. Reads them all."""
        copies = self._copies
        if copies is None:
            return {"steps": [], "kept": [], "era": -1}
        copies.settle()
        kept: list[list[int]] = []
        if is_leader(roster, self._loop.world.rank):
            node = roster.members[self._loop.world.rank].node
            others = [m.rank for m in roster.members if m.node != node]
            kept = [[rank, step] for rank in others for step in copies.memory.verified(rank)]
        steps = list(copies.verified(copies.rank))
        return {"steps": steps, "kept": kept, "era": copies.memory.era}

    def newest(self) -> int:
        """The newest step that is copied; -1 if there is none."""
        copies = self._copies
        return -1 if copies is None else copies.memory.newest(copies.rank)

    def _roster(self) -> Roster:
        world = self._loop.world
        assert isinstance(world, RosterWorld)
        return world.roster

    @property
    def copies(self) -> ShadowCopies:
        """Of a job that has them."""
        assert self._copies is not None
        return self._copies

    def keep_rank_local(self, tree: Any) -> None:
        """What this rank alone knew, from a copy that was read elsewhere."""
        self._rank_local = tree

    def load(self, rank: int, step: int) -> int:
        """This rank's state becomes what the shadow copy of `rank` says; returns bytes."""
        loop, copies = self._loop, self._copies
        assert copies is not None
        meta, memory, at = copies.load(rank, step)
        copied = install(loop.state, meta, lambda tensors: copy_out(memory, at, tensors))
        return copied

    def load_rank_local(self, tag: int) -> bool:
        """What this rank alone knew, if only a copy or the disk tells; files it under `tag`.
        Returns whether there was any."""
        loop, copies, tree = self._loop, self._copies, self._rank_local
        rank, step = loop.world.rank, loop.steps_done
        if tree is None and copies is not None and step in copies.verified(rank):
            tree = copies.load(rank, step)[0]["rank_local"]
        self._rank_local = None
        if tree is not None:
            loop.rank_local.replace(tree)
            loop.rank_local.save(loop.worker, rank, tag)
        return tree is not None

    def rewound(self, plan: HealPlan, back: int) -> None:
        """All ranks have gone back to the plan's step: says so, and forgets later copies."""
        loop = self._loop
        if self._copies is not None:
            self._copies.forget_after(plan.step)
        loop.record("rewind", rank=loop.world.rank, step=plan.step, newest=plan.newest, back=back)
        if loop.world.rank == 0:
            where = "shadow copies" if plan.tier == "shadow" else f"disk ({self._folder()})"
            text = (
                f"nobody is left that holds all of step {plan.newest}: all ranks go back to step "
                f"{plan.step}, from {where}"
                if plan.step < plan.newest
                else f"goes on from step {plan.step}, from {where}"
            )
            print(f"hpcore: {text}", file=sys.stderr, flush=True)

    def _folder(self) -> str:
        return "" if self.checkpoints is None else str(self.checkpoints.path(0).parent)
