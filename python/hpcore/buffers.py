"""Buffers of replicated modules: what a forward changed on one rank becomes everybody's at commit.
 As with DistributedDataParallel one rank's values win: those of the lowest rank that had work in
this step. One thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hpcore.gradients import STEP_TIMEOUT_S
from hpcore.layout import dense
from hpcore.rollback import Shadow
from hpcore.tracked import TrackedState


class ReplicatedBuffers:
    """The buffers of some modules, in a fixed order."""

    def __init__(self, state: TrackedState, modules: Sequence[nn.Module], shadow: Shadow) -> None:
        self._parts = [p for p in state.buffers if any(p.module is m for m in modules)]
        self._shadow = shadow
        self._first: list[tuple[nn.Module, str, Tensor]] = []

    def flags(self) -> list[float]:
        """1.0 for each buffer that may have changed since the boundary."""
        return [
            1.0 if buffer is not None and self._shadow.changed(name, buffer) else 0.0
            for part in self._parts
            for name, _, _, buffer in part.places()
        ]

    def begin_again(self, keep: bool) -> None:
        """Exact mode: the next micro-batch begins with what the boundary left, as it would on any
        rank. `keep`: what the first one made of it is what stays of this step, see take_first."""
        for part in self._parts:
            for name, owner, key, buffer in part.places():
                if buffer is not None and self._shadow.changed(name, buffer):
                    if keep:
                        self._first.append((owner, key, buffer.detach().clone()))
                    self._shadow.give_back(name, owner, key)

    def forget_first(self) -> None:
        """A step begins, perhaps after one that was discarded in its middle."""
        self._first.clear()

    def take_first(self) -> None:
        """Exact mode: the buffers are what this rank's first micro-batch of the step left."""
        self.begin_again(keep=False)
        for owner, key, kept in self._first:
            buffer = owner._buffers[key]
            assert buffer is not None
            if buffer.shape == kept.shape and buffer.dtype == kept.dtype:
                buffer.detach().copy_(kept)
                self._shadow.touch(buffer)
            else:
                owner._buffers[key] = kept
        self._first.clear()

    def spread(self, communicator: Any, root: int, changed: Sequence[float]) -> None:
        """Copies the buffers that changed on any rank from `root` to all. Raises RosterChanged."""
        lists: list[tuple[int, int]] = []
        number = 0
        for part in self._parts:
            for _, owner, key, buffer in part.places():
                if changed[number] > 0 and buffer is not None:
                    lying = _contiguous(owner, key, buffer)
                    self._shadow.touch(lying)
                    if lying.nbytes:
                        lists.append((lying.data_ptr(), lying.nbytes))
                number += 1
        if lists:
            communicator.broadcast(lists, root, STEP_TIMEOUT_S)


def _contiguous(owner: nn.Module, key: str, buffer: Tensor) -> Tensor:
    if dense(buffer):
        return buffer
    fresh = owner._buffers[key] = buffer.contiguous()
    return fresh
