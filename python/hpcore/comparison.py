"""Silent corruption: replicas compare digests of their state, and the odd one out is found.

Compared are parameters and optimizer state as they lie, which are bit-equal on replicas by design.
All ranks see the same digests and come to the same verdict. Training thread only.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcore import _core
from hpcore.errors import CorruptData, JobStopped
from hpcore.plain import decode, encode
from hpcore.protection import Protection
from hpcore.shadow_copies import flat_bytes
from hpcore.tracked import capture
from hpcore.world import Mail

if TYPE_CHECKING:
    from hpcore.loop import Loop


@dataclass(frozen=True)
class Verdict:
    """Ranks that differ from the majority of their replicas, and groups that have no majority."""

    suspects: tuple[int, ...] = ()
    undecided: tuple[tuple[int, ...], ...] = ()


def judge(parts: Sequence[str], digests: Sequence[str]) -> Verdict:
    """Of each rank: which part of the state it holds, and the digest of that. Pure."""
    suspects: list[int] = []
    undecided: list[tuple[int, ...]] = []
    for part in dict.fromkeys(parts):
        ranks = [rank for rank, other in enumerate(parts) if other == part]
        digest, votes = Counter(digests[rank] for rank in ranks).most_common(1)[0]
        if votes == len(ranks):
            continue
        if 2 * votes > len(ranks):
            suspects += [rank for rank in ranks if digests[rank] != digest]
        else:
            undecided.append(tuple(ranks))
    return Verdict(tuple(suspects), tuple(undecided))


class Comparison:
    """Compares as often as the job's protection says."""

    def __init__(self, loop: Loop, protection: Protection) -> None:
        self._loop = loop
        self._every = protection.compare_every
        self._stops = protection.on_corruption == "stop"
        self._warned: set[tuple[int, ...]] = set()
        self.spent_ns = 0
        """How long the last comparison took, the wait for the other ranks included."""

    def due(self, step: int) -> bool:
        """Whether this step compares what there was before it."""
        loop = self._loop
        return bool(
            self._every
            and step
            and step % self._every == 0
            and loop.worker is not None
            and not loop.rehearsing
        )

    def run(self, step: int) -> None:
        """Compares; before the step is agreed, so that a suspect's gradients do not count.

        Blocks until all ranks came. Raises CorruptData on a suspect, which is then to be healed,
        JobStopped on all ranks if there is no majority and that is to stop the job, RosterChanged.
        """
        loop, begun = self._loop, time.monotonic_ns()
        tensors = capture(loop.state.settled).tensors
        memories: list[Any] = [flat_bytes(tensor).numpy() for tensor in tensors]
        digests = [_core.digest128(memory) for memory in memories]
        own = {"part": loop.state.part(), "digest": _core.digest128(b"".join(digests)).hex()}
        limit_s = loop.recovery.deadline_s
        told = [decode(t) for t in loop.world.communicator.all_gather_bytes(encode(own), limit_s)]
        self.spent_ns = time.monotonic_ns() - begun
        verdict = judge([one["part"] for one in told], [one["digest"] for one in told])
        for ranks in verdict.undecided:
            self._no_majority(ranks, step)
        if loop.world.rank in verdict.suspects:
            loop.record("suspect", rank=loop.world.rank, step=step, digest=own["digest"])
            raise CorruptData(
                f"rank {loop.world.rank} is suspect: its state before step {step} differs from "
                "that of all its replicas, which agree; it is healed from them. Check its hardware"
            )

    def _no_majority(self, ranks: tuple[int, ...], step: int) -> None:
        loop = self._loop
        text = (
            f"the state of ranks {list(ranks)} before step {step} should be equal and is not, and "
            "with no majority nobody can say which is right: silent corruption"
        )
        if ranks not in self._warned:
            self._warned.add(ranks)
            loop.record("corruption", rank=loop.world.rank, ranks=list(ranks), step=step)
            if loop.world.rank == ranks[0] and not self._stops:
                print(f"hpcore: warning: {text}", file=sys.stderr, flush=True)
        if self._stops:
            text += "; on_corruption='warn' goes on"
            loop.worker.post(Mail.STOP, step, 0, text)
            raise JobStopped(text)
