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

    def flags(self) -> list[float]:
        """1.0 for each buffer that may have changed since the boundary."""
        return [
            1.0 if buffer is not None and self._shadow.changed(name, buffer) else 0.0
            for part in self._parts
            for name, _, _, buffer in part.places()
        ]

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
