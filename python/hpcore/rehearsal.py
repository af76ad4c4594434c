"""A standby's rehearsal: one step, run as the last rank, of which nothing is kept but its warmth.

Afterwards imports, model, optimizer state, allocator and data mapping are in place and their memory
is touched. Training thread only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hpcore.layout import same_layout
from hpcore.step import Step
from hpcore.tracked import TrackedState, capture
from hpcore.world import Phase, State

if TYPE_CHECKING:
    from hpcore.loop import Loop

_NEVER = 1 << 40  # a generation that does not come


class Rehearsal:
    """The rehearsal of one worker; without one all methods but `run` do nothing."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pristine: Pristine | None = None

    def run(self, data: Any) -> Iterator[Step]:
        """Yields the step; then gives everything back and says WARM.

        A rehearsal that failed never ends: its fault was mailed, the agent replaces the standby.
        """
        loop = self._loop
        loop.rehearsing = True
        self._pristine = Pristine(loop.state)
        step = Step(loop, 0, data)
        yield step
        step.require_ended()
        while step.discarded:
            loop.worker.wait_roster(_NEVER, 3600.0)
        self._pristine.give_back()
        loop.shadow.restore()
        loop.rank_local.roll_back()
        loop.gradients.clear()
        loop.use_huge_pages()
        loop.rehearsing = False
        if loop.network.forced:
            loop.network.prepare()
        loop.worker.progress(0, Phase.STANDBY)
        loop.worker.state = State.WARM

    def forget_trees(self) -> None:
        """The state has been replaced as a whole: nothing needs to be taken back."""
        self._pristine = None

    def take_back_optimizer_state(self) -> None:
        """This worker's state is what all begin with: as the script made it, no trace of a step."""
        if self._pristine is not None:
            self._pristine.forget_rehearsal()
            self._pristine = None


class Pristine:
    """Settled state as the script made it, kept over a rehearsal.

    Only for the time of the rehearsal does it hold copies; what it keeps afterwards is which
    optimizer state there was before, in case this worker becomes the one whose state all others
    take.
    """

    def __init__(self, state: TrackedState) -> None:
        self._state = state
        before = capture(state.settled)
        self._trees, self._names = before.trees, before.names
        self._clones: list[Tensor] = [
            t.detach().clone(memory_format=torch.preserve_format) for t in before.tensors
        ]

    def give_back(self) -> None:
        """After the rehearsal: old values into the live tensors; state that the rehearsal made
        stays, touched."""
        own = capture(self._state.settled).by_name()
        with torch.no_grad():
            for name, clone in zip(self._names, self._clones, strict=True):
                if name in own and same_layout(own[name], clone):
                    own[name].detach().copy_(clone)
        self._clones.clear()

    def forget_rehearsal(self) -> None:
        """Drops the optimizer state that the rehearsal made."""
        own = capture(self._state.settled).wholes_by_name()
        tensors = [own[name] for name in self._names]
        for part, tree in zip(self._state.settled, self._trees, strict=True):
            part.restore(tree, tensors)
